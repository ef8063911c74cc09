// SPDX-License-Identifier: GPL-2.0
#include "useraccess/shim.h"
#include "suspend/suspend.c"
#undef main

int main(void)
{
	return shim_usable() ? module_test() : 4;
}
