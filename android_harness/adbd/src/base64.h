// Base64 as it stands in adb's public key files (RFC 4648, with padding).
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace adbd {

// The decoded bytes, or nothing where `text` is not canonical base64.
std::optional<std::string> DecodeBase64(std::string_view text);

// Without padding, as fingerprints are written.
std::string EncodeBase64Unpadded(std::string_view bytes);

}  // namespace adbd
