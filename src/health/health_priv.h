/* health_priv.h - what the files of this room share. */
#ifndef MERIDIAN_HEALTH_HEALTH_PRIV_H
#define MERIDIAN_HEALTH_HEALTH_PRIV_H

#include "health/health.h"

uint32_t age_ms(bool ever, uint64_t since_us, uint64_t now_us);

/* The index of a region, or region_count. */
uint32_t region_index(const struct health *health, uint8_t region);

/* Fills in the masks and counts of the own parts. */
void own_parts(const struct health *health, struct health_report *ret);

#endif
