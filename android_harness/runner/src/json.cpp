#include "json.h"

#include <cstdio>

#include "text.h"

namespace pocketship {

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : valid_utf8(text)) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      char escaped[8];
      std::snprintf(escaped, sizeof(escaped), "\\u%04x", static_cast<unsigned>(c));
      out += escaped;
    } else {
      out += c;
    }
  }
  return out + "\"";
}

std::string json_array(const std::vector<std::string>& values) {
  std::string out = "[";
  for (const std::string& value : values) {
    out += (out.size() > 1 ? ", " : "") + value;
  }
  return out + "]";
}

void JsonObject::add_json(const char* key, const std::string& json) {
  text_ += (text_.empty() ? "" : ", ") + quoted(key) + ": " + json;
}

void JsonObject::add(const char* key, const std::string& text) { add_json(key, quoted(text)); }

void JsonObject::add(const char* key, std::int64_t number) {
  add_json(key, std::to_string(number));
}

void JsonObject::add(const char* key, bool value) { add_json(key, value ? "true" : "false"); }

void JsonObject::add(const char* key, const std::vector<std::int64_t>& numbers) {
  std::string list = "[";
  for (const std::int64_t number : numbers) {
    list += (list.size() > 1 ? "," : "") + std::to_string(number);
  }
  add_json(key, list + "]");
}

}  // namespace pocketship
