// Tensors whose dimensions lie in memory in another order than C's ("channels last").
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

namespace pocketship {

// Where the elements of a tensor lie: `order[0]` is the outermost dimension in memory.
struct Layout {
  std::vector<std::int64_t> shape;
  std::vector<std::uint8_t> order;
  std::size_t item_bytes = 0;

  bool is_c_order() const {
    for (std::size_t i = 0; i < order.size(); ++i) {
      if (order[i] != i) {
        return false;
      }
    }
    return true;
  }
};

// Distance, in elements, between neighbours along each dimension; `order[0]` is outermost.
template <typename Shape, typename Order>
std::vector<std::int64_t> strides_of(const Shape& shape, const Order& order) {
  std::vector<std::int64_t> strides(shape.size(), 1);
  std::int64_t stride = 1;
  for (auto dimension = order.rbegin(); dimension != order.rend(); ++dimension) {
    strides[*dimension] = stride;
    stride *= shape[*dimension];
  }
  return strides;
}

// Copies between C order and the layout's order; `to_layout` says which way.
inline void reorder(const Layout& layout, const char* from, char* to, bool to_layout) {
  std::vector<std::uint8_t> c_order;
  std::int64_t count = 1;
  for (const std::int64_t size : layout.shape) {
    c_order.push_back(static_cast<std::uint8_t>(c_order.size()));
    count *= size;
  }
  const std::vector<std::int64_t> plain_strides = strides_of(layout.shape, c_order);
  const std::vector<std::int64_t> layout_strides = strides_of(layout.shape, layout.order);
  const std::size_t bytes = layout.item_bytes;
  for (std::int64_t element = 0; element < count; ++element) {
    std::int64_t rest = element;
    std::int64_t offset = 0;
    for (std::size_t d = 0; d < layout.shape.size(); ++d) {
      offset += rest / plain_strides[d] * layout_strides[d];
      rest %= plain_strides[d];
    }
    const std::size_t plain = static_cast<std::size_t>(element) * bytes;
    const std::size_t laid_out = static_cast<std::size_t>(offset) * bytes;
    std::memcpy(to + (to_layout ? laid_out : plain), from + (to_layout ? plain : laid_out), bytes);
  }
}

}  // namespace pocketship
