/* frame: the sizes of Ethernet frames (IEEE 802.3, 3.1.1), for those that carry them.
 *
 * Provides  FRAME_SIZE, FRAME_HEADER_SIZE
 * Uses      nothing of ours */
#ifndef CORE_FRAME_H
#define CORE_FRAME_H

#define FRAME_HEADER_SIZE 14 /* destination, source, type */
#define FRAME_SIZE 1520      /* at most: an MTU of 1500, the header, a tag (802.1Q) */

#endif
