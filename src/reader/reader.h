/* reader.h - the room's name for meridian_flags.h, which is installed. */
#ifndef MERIDIAN_READER_READER_H
#define MERIDIAN_READER_READER_H

#include "reader/meridian_flags.h"

#endif
