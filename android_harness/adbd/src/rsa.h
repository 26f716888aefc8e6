// RSA signatures as adb makes them: 2048 bits, PKCS #1 v1.5, "SHA-1" of a 20-byte token that is
// used as the digest itself.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

namespace adbd {

constexpr size_t kTokenBytes = 20;
constexpr size_t kRsaBytes = 256;
constexpr size_t kRsaWords = kRsaBytes / 4;

// A number of 2048 bits, least significant word first.
using RsaNumber = std::array<uint32_t, kRsaWords>;

struct RsaPublicKey {
  RsaNumber modulus;
  uint32_t exponent;
};

// Reads the 524-byte structure that adb's public key files hold in base64: word count, -1/n mod
// 2^32, n, 2^4096 mod n, e (all little endian). The two derived fields are not used: we compute our
// own. Nothing where it is not a 2048-bit key with an odd modulus and exponent 3 or 65537.
std::optional<RsaPublicKey> ParseAndroidPublicKey(std::string_view bytes);

// True where `signature` (256 bytes, big endian) is the key owner's PKCS #1 v1.5 signature over the
// 20 bytes of `token`. The whole padding is compared, not skipped (RFC 8017, 8.2.2).
bool VerifyToken(const RsaPublicKey& key, std::string_view token, std::string_view signature);

}  // namespace adbd
