// SHA-256 (FIPS 180-4), for the fingerprints of keys that were refused.
#pragma once

#include <string>
#include <string_view>

namespace adbd {

// The 32 bytes of the digest.
std::string Sha256(std::string_view data);

}  // namespace adbd
