/* SPDX-License-Identifier: GPL-2.0 */
#ifndef MSPD_LIB_UTF8_H
#define MSPD_LIB_UTF8_H

/*
 * Puts '?' for each byte that is no part of a character: names of processes and
 * files are any bytes, and are cut anywhere, but JSON takes text only.
 */
void utf8_repair(char *text);

#endif /* MSPD_LIB_UTF8_H */
