/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Which libraries a process has, and whose functions its calls reach. */
#ifndef CTESTS_COLUMN_H
#define CTESTS_COLUMN_H

enum column {
    REAL, /* libxenlight alone */
    ALONE, /* libxlevent alone */
    BESIDE, /* libxlevent in front of libxenlight */
};

extern enum column column;

/* First of all in main(). Ends the process if it is none of them, or not the one that CTESTS_COLUMN names. */
void find_column(void);

#endif
