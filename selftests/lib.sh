# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# For tests that are shell scripts: TAP, a scratch directory, clean-up.
#
#	. "$(dirname "$0")/../lib.sh"
#	check "name" command...		passes when the command succeeds
#	check_fails "name" command...	passes when it fails
#	finish				plan and exit code
#
# $scratch is an empty directory that goes away with the script; at_exit adds
# a command to what is done then, the last one first.

tap_count=0
tap_failed=0
tap_skipped=0
tap_at_exit=:
# shellcheck disable=SC2034 # for the tests
top=$(cd "$(dirname "$0")/../.." && pwd)
scratch=$(mktemp -d)

tap_clean_up() {
	eval "$tap_at_exit"
	rm -rf "$scratch"
}
trap tap_clean_up EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

at_exit() {
	tap_at_exit="$*; $tap_at_exit"
}

pass() {
	tap_count=$((tap_count + 1))
	echo "ok $tap_count - $1"
}

fail() {
	tap_count=$((tap_count + 1))
	tap_failed=$((tap_failed + 1))
	echo "not ok $tap_count - $1"
}

skip() {
	tap_count=$((tap_count + 1))
	tap_skipped=$((tap_skipped + 1))
	echo "ok $tap_count - $1 # SKIP ${2:-}"
}

skip_all() {
	echo "1..0 # SKIP $1"
	exit 4
}

# The output of what is checked is diagnosis.
check() {
	tap_name=$1
	shift
	if "$@" > "$scratch/tap" 2>&1; then
		pass "$tap_name"
	else
		fail "$tap_name"
		echo "# failed: $*"
	fi
	sed 's/^/# /' "$scratch/tap"
}

check_fails() {
	tap_name=$1
	shift
	if "$@" > "$scratch/tap" 2>&1; then
		fail "$tap_name"
		echo "# succeeded: $*"
	else
		pass "$tap_name"
	fi
	sed 's/^/# /' "$scratch/tap"
}

# exit_code CODE command...: succeeds when the command ends with that code
exit_code() {
	tap_want=$1
	shift
	tap_got=0
	"$@" || tap_got=$?
	echo "exit code $tap_got, wanted $tap_want"
	[ "$tap_got" = "$tap_want" ]
}

finish() {
	echo "1..$tap_count"
	if [ "$tap_failed" -gt 0 ]; then
		exit 1
	fi
	if [ "$tap_count" = "$tap_skipped" ]; then
		exit 4
	fi
	exit 0
}
