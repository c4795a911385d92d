/* meridian_flags.h - flags, configuration and services for programs, read from the view that the
 * node of their region publishes (`run/view` in its folder): no request, no lock, no system call,
 * no allocation, and no majority. What was read last stays, if the node dies or is cut off.
 *
 * Link with -lmeridian_flags. All calls but open, refresh and close may come from any number of
 * threads at once. Costs: some hundred nanoseconds; the first call after a change also takes the
 * new view over, some hundred microseconds. */
#ifndef MERIDIAN_FLAGS_H
#define MERIDIAN_FLAGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct meridian_flags;

/* `path` need not exist yet. NULL: out of memory. */
struct meridian_flags *meridian_flags_open(const char *path);

/* No other thread may use it any more. NULL is fine. */
void meridian_flags_close(struct meridian_flags *flags);

/* Finds the view, or another file in its place: at start, and every second or so off the hot path.
 * Changes within a file need no call. False: there is nothing new to be used, and `why` (NULL, or
 * of `why_size` bytes) says why. One thread at a time. */
bool meridian_flags_refresh(struct meridian_flags *flags, char *why, size_t why_size);

struct meridian_attribute {
        const char *name;
        const char *value;
};

/* Is the flag on for this user, here? `user` may be NULL: none; `attributes` are others than `user`
 * and `region`. `otherwise` is the answer where there is no such flag, or no view yet. */
bool meridian_flag(struct meridian_flags *flags, const char *name, const char *user,
                   const struct meridian_attribute *attributes, size_t attribute_count,
                   bool otherwise);

/* A value of the configuration, cut to fit and terminated; its length, or -1: there is none. */
long meridian_config(struct meridian_flags *flags, const char *name, char *value, size_t size);

struct meridian_instance {
        char id[64];
        char host[64]; /* an address */
        uint16_t port;
        uint16_t weight;
        bool near;       /* in a region that may get traffic */
        uint32_t rtt_us; /* to its region; 0: the own one, UINT32_MAX: not known */
};

/* The instances of a service, the nearest first, those of regions that get no traffic last. At most
 * `size` are written; how many there are is returned. */
size_t meridian_service(struct meridian_flags *flags, const char *name,
                        struct meridian_instance *instances, size_t size);

/* How old what is read is: Unix time in microseconds at which the view was published; 0: none. */
uint64_t meridian_flags_time(struct meridian_flags *flags);

#ifdef __cplusplus
}
#endif

#endif
