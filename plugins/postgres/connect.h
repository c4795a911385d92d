/* connect.h - opening the connection of remote.c. Private to the two. */
#ifndef MERIDIAN_POSTGRES_CONNECT_H
#define MERIDIAN_POSTGRES_CONNECT_H

/* Opens remote.conn as the session's user, to the session's database, within `ms`, and checks
 * that it is the writer of this very cluster, not older than this standby. Throws 08001. */
void connect_open(int ms);

#endif
