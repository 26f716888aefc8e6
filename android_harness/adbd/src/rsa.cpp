#include "rsa.h"

#include <string>

namespace adbd {
namespace {

// DigestInfo of a SHA-1 digest up to the digest itself (RFC 8017, 9.2, note 1).
constexpr std::array<unsigned char, 15> kSha1Prefix = {
    0x30, 0x21, 0x30, 0x09, 0x06, 0x05, 0x2b, 0x0e, 0x03, 0x02, 0x1a, 0x05, 0x00, 0x04, 0x14};

uint32_t ReadLittle(std::string_view bytes, size_t at) {
  uint32_t value = 0;
  for (size_t i = 4; i-- > 0;) value = value << 8 | static_cast<unsigned char>(bytes[at + i]);
  return value;
}

bool Less(const RsaNumber& a, const RsaNumber& b) {
  for (size_t i = kRsaWords; i-- > 0;) {
    if (a[i] != b[i]) return a[i] < b[i];
  }
  return false;
}

// a -= b modulo 2^2048.
void Subtract(RsaNumber& a, const RsaNumber& b) {
  uint64_t borrow = 0;
  for (size_t i = 0; i < kRsaWords; ++i) {
    const uint64_t difference = static_cast<uint64_t>(a[i]) - b[i] - borrow;
    a[i] = static_cast<uint32_t>(difference);
    borrow = difference >> 63;
  }
}

// Arithmetic modulo an odd n with its top bit set, in Montgomery's form (R = 2^2048).
class Montgomery {
 public:
  explicit Montgomery(const RsaNumber& n) : n_(n) {
    // Newton: each step doubles the number of correct low bits of 1/n[0].
    uint32_t inverse = n[0];
    for (int i = 0; i < 4; ++i) inverse *= 2 - n[0] * inverse;
    minus_inverse_ = 0 - inverse;
    // R mod n is R - n, because 2^2047 <= n < 2^2048; doubling it 2048 times gives R^2 mod n.
    r_squared_.fill(0);
    Subtract(r_squared_, n_);
    for (size_t i = 0; i < kRsaBytes * 8; ++i) Double(r_squared_);
  }

  // a * b / R mod n; the result is below n where a and b are (coarsely integrated scanning).
  RsaNumber Multiply(const RsaNumber& a, const RsaNumber& b) const {
    std::array<uint32_t, kRsaWords + 2> t{};
    for (size_t i = 0; i < kRsaWords; ++i) {
      uint64_t carry = 0;
      for (size_t j = 0; j < kRsaWords; ++j) {
        carry += static_cast<uint64_t>(a[j]) * b[i] + t[j];
        t[j] = static_cast<uint32_t>(carry);
        carry >>= 32;
      }
      carry += t[kRsaWords];
      t[kRsaWords] = static_cast<uint32_t>(carry);
      t[kRsaWords + 1] = static_cast<uint32_t>(carry >> 32);

      const uint32_t m = t[0] * minus_inverse_;
      carry = (static_cast<uint64_t>(m) * n_[0] + t[0]) >> 32;
      for (size_t j = 1; j < kRsaWords; ++j) {
        carry += static_cast<uint64_t>(m) * n_[j] + t[j];
        t[j - 1] = static_cast<uint32_t>(carry);
        carry >>= 32;
      }
      carry += t[kRsaWords];
      t[kRsaWords - 1] = static_cast<uint32_t>(carry);
      t[kRsaWords] = t[kRsaWords + 1] + static_cast<uint32_t>(carry >> 32);
    }
    RsaNumber result;
    for (size_t i = 0; i < kRsaWords; ++i) result[i] = t[i];
    if (t[kRsaWords] != 0 || !Less(result, n_)) Subtract(result, n_);
    return result;
  }

  RsaNumber Power(const RsaNumber& base, uint32_t exponent) const {
    const RsaNumber factor = Multiply(base, r_squared_);
    RsaNumber result = factor;
    int bit = 31;
    while ((exponent >> bit & 1) == 0) --bit;
    while (bit-- > 0) {
      result = Multiply(result, result);
      if ((exponent >> bit & 1) != 0) result = Multiply(result, factor);
    }
    RsaNumber one{};
    one[0] = 1;
    return Multiply(result, one);
  }

 private:
  // a = 2a mod n for a below n.
  void Double(RsaNumber& a) const {
    uint32_t carry = 0;
    for (uint32_t& word : a) {
      const uint32_t top = word >> 31;
      word = word << 1 | carry;
      carry = top;
    }
    if (carry != 0 || !Less(a, n_)) Subtract(a, n_);
  }

  RsaNumber n_;
  RsaNumber r_squared_;
  uint32_t minus_inverse_;
};

}  // namespace

std::optional<RsaPublicKey> ParseAndroidPublicKey(std::string_view bytes) {
  constexpr size_t kModulusAt = 8;
  constexpr size_t kExponentAt = kModulusAt + 2 * kRsaBytes;
  if (bytes.size() != kExponentAt + 4 || ReadLittle(bytes, 0) != kRsaWords) return std::nullopt;
  RsaPublicKey key;
  for (size_t i = 0; i < kRsaWords; ++i) key.modulus[i] = ReadLittle(bytes, kModulusAt + 4 * i);
  key.exponent = ReadLittle(bytes, kExponentAt);
  const bool odd = (key.modulus.front() & 1) != 0;
  const bool full_length = key.modulus.back() >> 31 != 0;
  if (!odd || !full_length || (key.exponent != 3 && key.exponent != 65537)) return std::nullopt;
  return key;
}

bool VerifyToken(const RsaPublicKey& key, std::string_view token, std::string_view signature) {
  if (token.size() != kTokenBytes || signature.size() != kRsaBytes) return false;
  RsaNumber number{};
  for (size_t i = 0; i < kRsaBytes; ++i) {
    const size_t from_end = kRsaBytes - 1 - i;
    number[i / 4] |= static_cast<uint32_t>(static_cast<unsigned char>(signature[from_end]))
                     << (8 * (i % 4));
  }
  if (!Less(number, key.modulus)) return false;

  std::string expected(kRsaBytes, '\xff');
  expected[0] = '\0';
  expected[1] = '\1';
  const size_t prefix_at = kRsaBytes - kTokenBytes - kSha1Prefix.size();
  expected[prefix_at - 1] = '\0';
  for (size_t i = 0; i < kSha1Prefix.size(); ++i) {
    expected[prefix_at + i] = static_cast<char>(kSha1Prefix[i]);
  }
  expected.replace(kRsaBytes - kTokenBytes, kTokenBytes, token);

  const RsaNumber opened = Montgomery(key.modulus).Power(number, key.exponent);
  for (size_t i = 0; i < kRsaBytes; ++i) {
    const auto byte = static_cast<char>(opened[i / 4] >> (8 * (i % 4)) & 0xff);
    if (byte != expected[kRsaBytes - 1 - i]) return false;
  }
  return true;
}

}  // namespace adbd
