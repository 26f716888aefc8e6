// Just enough JSON to write.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace pocketship {

// Writes one JSON object, member by member.
class JsonObject {
 public:
  void add(const char* key, const std::string& text);
  void add(const char* key, const char* text) { add(key, std::string(text)); }
  void add(const char* key, std::int64_t number);
  void add(const char* key, bool value);
  void add(const char* key, const std::vector<std::int64_t>& numbers);
  // `json` is a finished value.
  void add_json(const char* key, const std::string& json);
  std::string str() const { return "{" + text_ + "}"; }

 private:
  std::string text_;
};

// A JSON string with its quotes. What is not UTF-8 becomes U+FFFD, so that any file name or tensor
// name gives valid JSON.
std::string quoted(const std::string& text);

// `[a, b]` of finished values.
std::string json_array(const std::vector<std::string>& values);

}  // namespace pocketship
