// SPDX-License-Identifier: Apache-2.0
// JSON as an everyday C++ program handles it: a text of orders is parsed to a tree of strings, maps and
// vectors, changed, and written again; prints a sum of what was written.
// Usage: json ROUNDS
#include <charconv>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace {

struct Value;
using Array = std::vector<Value>;
using Object = std::map<std::string, Value>;

struct Value {
  std::variant<std::nullptr_t, bool, double, std::string, std::unique_ptr<Array>, std::unique_ptr<Object>> is;
};

class Parser {
 public:
  explicit Parser(const std::string &text) : next_(text.data()), end_(next_ + text.size()) {}

  Value value() {
    skip();
    switch (*next_) {
      case '{': return {object()};
      case '[': return {array()};
      case '"': return {string()};
      case 't': next_ += 4; return {true};
      case 'f': next_ += 5; return {false};
      case 'n': next_ += 4; return {nullptr};
      default: return {number()};
    }
  }

 private:
  void skip() {
    while (*next_ == ' ' || *next_ == '\n' || *next_ == ',' || *next_ == ':') next_++;
  }

  std::unique_ptr<Object> object() {
    auto result = std::make_unique<Object>();
    for (next_++, skip(); *next_ != '}'; skip()) {
      std::string key = string();
      skip();
      result->emplace(std::move(key), value());
    }
    next_++;
    return result;
  }

  std::unique_ptr<Array> array() {
    auto result = std::make_unique<Array>();
    for (next_++, skip(); *next_ != ']'; skip()) result->push_back(value());
    next_++;
    return result;
  }

  std::string string() {
    std::string result;
    for (next_++; *next_ != '"'; next_++) {
      if (*next_ == '\\') next_++;
      result += *next_;
    }
    next_++;
    return result;
  }

  double number() {
    double result = 0;
    next_ = std::from_chars(next_, end_, result).ptr;
    return result;
  }

  const char *next_;
  const char *end_;
};

void write(const Value &value, std::string &out);

struct Writer {
  std::string &out;

  void operator()(std::nullptr_t) const { out += "null"; }
  void operator()(bool is) const { out += is ? "true" : "false"; }
  void operator()(double number) const {
    char text[32];
    out.append(text, std::to_chars(text, text + sizeof text, number).ptr);
  }
  void operator()(const std::string &text) const {
    out += '"';
    for (char character : text) {
      if (character == '"' || character == '\\') out += '\\';
      out += character;
    }
    out += '"';
  }
  void operator()(const std::unique_ptr<Array> &array) const {
    out += '[';
    for (const Value &element : *array) {
      if (&element != &array->front()) out += ',';
      write(element, out);
    }
    out += ']';
  }
  void operator()(const std::unique_ptr<Object> &object) const {
    out += '{';
    bool is_first = true;
    for (const auto &[key, value] : *object) {
      if (!is_first) out += ',';
      is_first = false;
      (*this)(key);
      out += ':';
      write(value, out);
    }
    out += '}';
  }
};

void write(const Value &value, std::string &out) { std::visit(Writer{out}, value.is); }

Object &members(Value &value) { return *std::get<std::unique_ptr<Object>>(value.is); }
Array &elements(Value &value) { return *std::get<std::unique_ptr<Array>>(value.is); }

// Orders by customer, each with what it costs in all.
Value transformed(Value orders) {
  std::map<std::string, std::vector<Value>> by_customer;
  for (Value &order : elements(orders)) {
    double total = 0;
    for (Value &line : elements(members(order)["lines"])) {
      Object &fields = members(line);
      total += std::get<double>(fields["price"].is) * std::get<double>(fields["count"].is);
      fields["label"].is = std::get<std::string>(fields["article"].is) + " x " + std::to_string(int(total));
    }
    members(order)["total"].is = total;
    std::string customer = std::get<std::string>(members(order)["customer"].is);
    by_customer[customer].push_back(std::move(order));
  }
  auto result = std::make_unique<Object>();
  for (auto &[customer, list] : by_customer)
    (*result)[customer].is = std::make_unique<Array>(std::move(list));
  return {std::move(result)};
}

std::string text_of_orders(int count) {
  std::uint32_t state = 1;
  auto random = [&state](unsigned below) { return ((state = state * 1664525u + 1013904223u) >> 8) % below; };
  std::string text = "[";
  for (int order = 0; order < count; order++) {
    text += order ? ",\n" : "";
    text += "{\"id\": " + std::to_string(order) + ", \"customer\": \"customer number " + std::to_string(random(64)) +
            "\", \"paid\": " + (random(2) ? "true" : "false") + ", \"note\": null, \"lines\": [";
    for (unsigned line = 0, lines = 1 + random(8); line < lines; line++) {
      text += line ? ", " : "";
      text += "{\"article\": \"" + std::string(4 + random(32), char('a' + random(26))) + "\", \"price\": " +
              std::to_string(random(1000)) + "." + std::to_string(random(100)) + ", \"count\": " +
              std::to_string(1 + random(9)) + ", \"tags\": [\"new\", \"a \\\"longer\\\" tag of some words\"]}";
    }
    text += "]}";
  }
  return text + "]";
}

}  // namespace

int main(int count, char **arguments) {
  int rounds = count > 1 ? std::atoi(arguments[1]) : 10;
  const std::string text = text_of_orders(2000);
  std::uint64_t sum = 0;
  for (int round = 0; round < rounds; round++) {
    std::string out;
    write(transformed(Parser(text).value()), out);
    for (char character : out) sum = sum * 31 + static_cast<unsigned char>(character);
  }
  std::printf("%016llx\n", static_cast<unsigned long long>(sum));
}
