# SPDX-License-Identifier: GPL-2.0
"""Sphinx, with the kernel's own extension for kernel-doc comments.

	apt-get install python3-sphinx linux-source-6.1
	tar -xf /usr/src/linux-source-6.1.tar.xz -C build linux-source-6.1/scripts \\
		linux-source-6.1/Documentation/sphinx
	sphinx-build Documentation build/html
"""

import os
import sys

top = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
linux = os.environ.get("LINUX_SOURCE", os.path.join(top, "build", "linux-source-6.1"))
sys.path.insert(0, os.path.join(linux, "Documentation", "sphinx"))
os.environ.setdefault("srctree", top)

project = "vasi"
extensions = ["kerneldoc"]
kerneldoc_bin = os.path.join(linux, "scripts", "kernel-doc")
kerneldoc_srctree = top
kerneldoc_verbosity = 1
c_id_attributes = ["__aligned_u64"]
html_theme = "alabaster"
exclude_patterns = []
