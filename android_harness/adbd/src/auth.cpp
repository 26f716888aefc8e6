#include "auth.h"

#include <fcntl.h>
#include <sys/random.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>

#include "base64.h"
#include "options.h"
#include "sha256.h"
#include "unique_fd.h"

namespace adbd {
namespace {

constexpr size_t kMaxKeyFileBytes = 1 << 20;
constexpr size_t kMaxShownComment = 64;

std::string ReadFile(const std::string& path) {
  const UniqueFd file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  std::string text;
  char buffer[4096];
  ssize_t count = -1;
  while (file && (count = read(file.get(), buffer, sizeof buffer)) > 0) {
    text.append(buffer, static_cast<size_t>(count));
    if (text.size() > kMaxKeyFileBytes) throw UsageError(path + ": too large for a file of keys");
  }
  if (count < 0) throw UsageError(path + ": cannot read the authorised keys: " + strerror(errno));
  return text;
}

std::string_view FirstWord(std::string_view line) {
  return line.substr(0, std::min(line.find_first_of(" \t"), line.size()));
}

}  // namespace

std::vector<RsaPublicKey> ReadAuthorizedKeys(const std::string& path) {
  const std::string text = ReadFile(path);
  std::vector<RsaPublicKey> keys;
  size_t number = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    std::string_view line(text.data() + at, end - at);
    at = end + 1;
    ++number;
    while (!line.empty() && (line.back() == '\r' || line.back() == ' ')) line.remove_suffix(1);
    if (line.empty() || line.front() == '#') continue;
    const auto bytes = DecodeBase64(FirstWord(line));
    const auto key = bytes ? ParseAndroidPublicKey(*bytes) : std::nullopt;
    if (!key) {
      throw UsageError(path + ":" + std::to_string(number) +
                       ": not an adb public key (2048-bit RSA, as in adbkey.pub)");
    }
    keys.push_back(*key);
  }
  if (keys.empty()) throw UsageError(path + ": holds no key: nobody could connect");
  return keys;
}

std::string NewToken() {
  std::string token(kTokenBytes, '\0');
  // Up to 256 bytes come whole once the kernel's pool is seeded; before that the call waits.
  while (getrandom(token.data(), token.size(), 0) != static_cast<ssize_t>(token.size())) {
    if (errno != EINTR) throw std::system_error(errno, std::generic_category(), "getrandom");
  }
  return token;
}

bool SignedByAny(const std::vector<RsaPublicKey>& keys, std::string_view token,
                 std::string_view signature) {
  return std::any_of(keys.begin(), keys.end(),
                     [&](const RsaPublicKey& key) { return VerifyToken(key, token, signature); });
}

std::string DescribeOfferedKey(std::string_view line) {
  line = line.substr(0, std::min(line.find('\0'), line.size()));
  const std::string_view encoded = FirstWord(line);
  const auto bytes = DecodeBase64(encoded);
  if (!bytes) return "something that is not a public key";
  std::string comment(line.substr(encoded.size()).substr(0, kMaxShownComment));
  std::replace_if(comment.begin(), comment.end(), [](char c) { return c < ' ' || c > '~'; }, '?');
  return "SHA256:" + EncodeBase64Unpadded(Sha256(*bytes)) + comment;
}

}  // namespace adbd
