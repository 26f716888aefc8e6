#include "packet.h"

namespace adbd {

uint32_t ReadU32(const char* at) {
  const auto* bytes = reinterpret_cast<const unsigned char*>(at);
  return static_cast<uint32_t>(bytes[0]) | static_cast<uint32_t>(bytes[1]) << 8 |
         static_cast<uint32_t>(bytes[2]) << 16 | static_cast<uint32_t>(bytes[3]) << 24;
}

void WriteU32(char* at, uint32_t value) {
  for (int i = 0; i < 4; ++i) at[i] = static_cast<char>(value >> (8 * i));
}

void WriteU64(char* at, uint64_t value) {
  WriteU32(at, static_cast<uint32_t>(value));
  WriteU32(at + 4, static_cast<uint32_t>(value >> 32));
}

PacketHeader DecodeHeader(const char* bytes) {
  return {ReadU32(bytes),      ReadU32(bytes + 4),  ReadU32(bytes + 8),
          ReadU32(bytes + 12), ReadU32(bytes + 16), ReadU32(bytes + 20)};
}

HeaderBytes EncodeHeader(uint32_t command, uint32_t arg0, uint32_t arg1, uint32_t length,
                         uint32_t checksum) {
  HeaderBytes bytes;
  const uint32_t fields[] = {command, arg0, arg1, length, checksum, ~command};
  for (size_t i = 0; i < 6; ++i) WriteU32(bytes.data() + 4 * i, fields[i]);
  return bytes;
}

uint32_t Checksum(std::string_view payload) {
  uint32_t sum = 0;
  for (const char c : payload) sum += static_cast<unsigned char>(c);
  return sum;
}

}  // namespace adbd
