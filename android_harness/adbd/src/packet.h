// The frame of the ADB protocol: 24 bytes of header, then a payload.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace adbd {

constexpr uint32_t FourCharacters(const char (&name)[5]) {
  return static_cast<uint32_t>(name[0]) | static_cast<uint32_t>(name[1]) << 8 |
         static_cast<uint32_t>(name[2]) << 16 | static_cast<uint32_t>(name[3]) << 24;
}

constexpr uint32_t kCnxn = FourCharacters("CNXN");
constexpr uint32_t kAuth = FourCharacters("AUTH");
constexpr uint32_t kOpen = FourCharacters("OPEN");
constexpr uint32_t kOkay = FourCharacters("OKAY");
constexpr uint32_t kWrte = FourCharacters("WRTE");
constexpr uint32_t kClse = FourCharacters("CLSE");

constexpr uint32_t kVersion = 0x01000001;
// From this version on a peer neither sends nor wants checksums.
constexpr uint32_t kVersionSkipsChecksum = 0x01000001;
constexpr uint32_t kMaxPayload = 1 << 20;
// What every peer takes and may send before the two sides have agreed on more.
constexpr uint32_t kMaxPayloadBeforeHandshake = 4096;

constexpr uint32_t kAuthToken = 1;
constexpr uint32_t kAuthSignature = 2;
constexpr uint32_t kAuthPublicKey = 3;

constexpr size_t kHeaderBytes = 24;
using HeaderBytes = std::array<char, kHeaderBytes>;

struct PacketHeader {
  uint32_t command;
  uint32_t arg0;
  uint32_t arg1;
  uint32_t length;
  uint32_t checksum;
  uint32_t magic;

  bool MagicIsRight() const { return magic == ~command; }
};

// Little-endian numbers at any address.
uint32_t ReadU32(const char* at);
void WriteU32(char* at, uint32_t value);
void WriteU64(char* at, uint64_t value);

PacketHeader DecodeHeader(const char* bytes);
HeaderBytes EncodeHeader(uint32_t command, uint32_t arg0, uint32_t arg1, uint32_t length,
                         uint32_t checksum);

// The sum of all bytes, modulo 2^32 ("crc" in old documents).
uint32_t Checksum(std::string_view payload);

}  // namespace adbd
