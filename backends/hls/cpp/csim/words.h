// Words of memory and bytes, in little-endian order.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include "types.h"

inline std::vector<word_t> read_words(const void *from, size_t count) {
  std::vector<word_t> words(count);
  const unsigned char *bytes = static_cast<const unsigned char *>(from);
  for (size_t word = 0; word < count; word++)
    for (int part = 0; part < PORT_BITS / 64; part++) {
      uint64_t bits;
      std::memcpy(&bits, bytes + word * (PORT_BITS / 8) + part * 8, 8);
      words[word].range(part * 64 + 63, part * 64) = bits;
    }
  return words;
}

inline void write_words(const std::vector<word_t> &words, void *to) {
  unsigned char *bytes = static_cast<unsigned char *>(to);
  for (size_t word = 0; word < words.size(); word++)
    for (int part = 0; part < PORT_BITS / 64; part++) {
      const uint64_t bits = words[word].range(part * 64 + 63, part * 64).to_uint64();
      std::memcpy(bytes + word * (PORT_BITS / 8) + part * 8, &bits, 8);
    }
}
