// SPDX-License-Identifier: Apache-2.0
// What a compiler is given: not much of our own, and very much of the standard library.
// BRIEF leaves out the most of it, for counting instructions.
#include <memory>
#include <vector>

#ifndef BRIEF
#include <algorithm>
#include <functional>
#include <iostream>
#include <map>
#include <sstream>
#include <string>
#include <unordered_map>

struct Visitor {
  virtual ~Visitor() = default;
  virtual void visit(const std::string &name, const std::vector<int> &values) = 0;
};

template <int depth>
struct Nested {
  std::map<std::string, Nested<depth - 1>> inner;
  void walk(Visitor &visitor) const {
    for (const auto &[name, next] : inner) next.walk(visitor);
  }
};
template <>
struct Nested<0> {
  std::unordered_map<std::string, std::vector<int>> leaves;
  void walk(Visitor &visitor) const {
    for (const auto &[name, values] : leaves) visitor.visit(name, values);
  }
};

struct Summary : Visitor {
  std::map<std::string, std::unique_ptr<std::function<int(int)>>> functions;
  std::ostringstream out;
  void visit(const std::string &name, const std::vector<int> &values) override {
    auto sorted = values;
    std::sort(sorted.begin(), sorted.end(), std::greater<>());
    for (int value : sorted) out << name << ' ' << value << '\n';
    functions[name] = std::make_unique<std::function<int(int)>>([sorted](int at) { return sorted.at(at); });
  }
};

int main() {
  Nested<6> nested;
  Summary summary;
  nested.walk(summary);
  std::cout << summary.out.str();
}
#else
int main() {
  auto numbers = std::make_unique<std::vector<int>>(1, 1);
  return numbers->at(0);
}
#endif
