/* Bytes that grow: kept from entry to entry, so that the hot loop allocates nothing once it is warm. */
#ifndef LAYER_BUFFER_H
#define LAYER_BUFFER_H

#include <stdint.h>
#include <stdlib.h>

struct layer_buffer {
    uint8_t *data;
    size_t size, capacity;
};

/* Make room for capacity bytes; 0, or -1 without memory. What was in the buffer stays. */
static inline int layer_buffer_reserve(struct layer_buffer *buffer, size_t capacity)
{
    if (capacity <= buffer->capacity)
        return 0;
    uint8_t *data = realloc(buffer->data, capacity);
    if (!data)
        return -1;
    buffer->data = data;
    buffer->capacity = capacity;
    return 0;
}

#endif
