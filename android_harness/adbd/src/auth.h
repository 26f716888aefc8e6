// Who may connect: the authorised keys and the challenge that a connection has to answer.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "rsa.h"

namespace adbd {

// Reads a file with one key a line, as in ~/.android/adbkey.pub: base64, then optionally a comment.
// Empty lines and lines that begin with # are skipped. Throws UsageError where the file cannot be
// read, a line is no key, or there is no key at all.
std::vector<RsaPublicKey> ReadAuthorizedKeys(const std::string& path);

// 20 fresh random bytes from the kernel.
std::string NewToken();

// Whether any of `keys` made `signature` over `token`.
bool SignedByAny(const std::vector<RsaPublicKey>& keys, std::string_view token,
                 std::string_view signature);

// What to show of a key that a peer offers: "SHA256:..." over the key's bytes (as
// `cut -d' ' -f1 adbkey.pub | base64 -d | sha256sum` counts them) and its comment with everything
// unprintable replaced.
std::string DescribeOfferedKey(std::string_view line);

}  // namespace adbd
