#include "connection.h"

#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <system_error>

#include "auth.h"

namespace adbd {
namespace {

constexpr size_t kMaxStreams = 128;
// Above this much unsent output no stream produces, and nothing more is read, so that a peer that
// does not read cannot make us remember more.
constexpr size_t kQueueLimit = 1 << 20;
// A peer that keeps to the protocol has one packet in flight on each stream.
constexpr size_t kMaxStreamInput = 2 * kMaxPayload;
constexpr size_t kReadBudget = 4 << 20;  // bytes from one client before others have their turn
constexpr int kMaxSignatures = 256;
constexpr uint32_t kSmallestMaxPayload = 512;

// Services write their output here; there is one thread.
char* OutputBuffer() {
  static const std::unique_ptr<char[]> buffer(new char[kMaxPayload]);
  return buffer.get();
}

}  // namespace

Connection::Connection(const Context& context, UniqueFd socket, std::string peer,
                       std::function<void()> on_dropped)
    : context_(context),
      socket_(std::move(socket)),
      peer_(std::move(peer)),
      on_dropped_(std::move(on_dropped)) {
  watch_ = context_.loop.Add(socket_.get(), EPOLLIN, [this](uint32_t events) { OnEvents(events); });
}

Connection::~Connection() { context_.loop.Remove(watch_); }

void Connection::Drop(const std::string& reason) {
  if (dropped_) return;
  dropped_ = true;
  if (!reason.empty()) fprintf(stderr, "adbd: %s: %s\n", peer_.c_str(), reason.c_str());
  context_.loop.Remove(watch_);
  socket_.reset();
  CloseAllStreams();
  on_dropped_();
}

void Connection::OnEvents(uint32_t events) {
  if ((events & (EPOLLERR | EPOLLHUP)) != 0) {
    Drop("");
    return;
  }
  if ((events & EPOLLOUT) != 0) Flush();
  if ((events & EPOLLIN) != 0) ReadPackets();
  UpdateInterest();
}

void Connection::UpdateInterest() {
  if (dropped_) return;
  uint32_t events = 0;
  if (HasRoom()) events |= EPOLLIN;
  if (Queued() > 0) events |= EPOLLOUT;
  context_.loop.Change(watch_, events);
}

// ---- Receiving

size_t Connection::Receive(char* at, size_t wanted) {
  const ssize_t count = recv(socket_.get(), at, wanted, MSG_DONTWAIT);
  if (count > 0) return static_cast<size_t>(count);
  if (count == 0) {
    Drop("");
  } else if (errno != EAGAIN && errno != EINTR) {
    Drop(std::string("lost: ") + strerror(errno));
  }
  return 0;
}

void Connection::ReadPackets() {
  size_t budget = kReadBudget;
  while (!dropped_ && HasRoom() && budget > 0) {
    size_t count = 0;
    if (header_have_ < kHeaderBytes) {
      count = Receive(header_bytes_.data() + header_have_, kHeaderBytes - header_have_);
      header_have_ += count;
      if (count == 0 || (header_have_ == kHeaderBytes && !AcceptHeader())) return;
    } else {
      count = Receive(payload_.get() + payload_have_, header_.length - payload_have_);
      payload_have_ += count;
      if (count == 0) return;
    }
    budget -= std::min(budget, count);
    if (header_have_ == kHeaderBytes && payload_have_ == header_.length) {
      header_have_ = 0;
      HandlePacket(std::string_view(payload_.get(), header_.length));
    }
  }
}

bool Connection::AcceptHeader() {
  header_ = DecodeHeader(header_bytes_.data());
  payload_have_ = 0;
  if (!header_.MagicIsRight()) {
    Drop("dropped: this is not the ADB protocol");
    return false;
  }
  // Nobody gets memory for a large packet before saying who it is.
  const uint32_t limit = state_ == State::kOnline ? kMaxPayload : kMaxPayloadBeforeHandshake;
  if (header_.length > limit) {
    Drop("dropped: a packet of " + std::to_string(header_.length) + " bytes is too long");
    return false;
  }
  if (header_.length > payload_capacity_) {
    payload_capacity_ = limit;
    payload_.reset(new char[limit]);
  }
  return true;
}

void Connection::HandlePacket(std::string_view payload) {
  const uint32_t version = header_.command == kCnxn ? header_.arg0 : peer_version_;
  if (version < kVersionSkipsChecksum && !payload.empty() &&
      Checksum(payload) != header_.checksum) {
    Drop("dropped: wrong checksum");
    return;
  }
  if (header_.command == kCnxn) {
    HandleConnect(payload);
    return;
  }
  if (header_.command == kAuth) {
    if (state_ == State::kAwaitingSignature) HandleAuth(payload);
    return;
  }
  if (state_ != State::kOnline) return;
  switch (header_.command) {
    case kOpen:
      HandleOpen(payload);
      break;
    case kWrte:
      HandleWrite(payload);
      break;
    case kOkay:
      if (Stream* const stream = Find(header_.arg1, header_.arg0)) {
        stream->may_send = true;
        Pump(header_.arg1);
      }
      break;
    case kClse:
      if (Stream* const stream = Find(header_.arg1, header_.arg0)) {
        HandleClose(header_.arg1, *stream);
      }
      break;
    default:
      break;  // newer clients may know more; what they ask for is not there
  }
}

void Connection::HandleConnect(std::string_view) {
  CloseAllStreams();
  state_ = State::kAwaitingConnect;
  peer_version_ = header_.arg0;
  max_payload_ = std::min(header_.arg1, kMaxPayload);
  if (max_payload_ < kSmallestMaxPayload) {
    Drop("dropped: wants packets of at most " + std::to_string(max_payload_) + " bytes");
  } else if (context_.options.needs_auth) {
    state_ = State::kAwaitingSignature;
    SendToken();
  } else {
    SendConnect();
  }
}

void Connection::HandleAuth(std::string_view payload) {
  if (header_.arg0 == kAuthSignature) {
    if (SignedByAny(context_.options.keys, token_, payload)) {
      SendConnect();
    } else if (++signatures_seen_ >= kMaxSignatures) {
      Drop("dropped: too many wrong signatures");
    } else {
      SendToken();  // the client tries its next key, or offers one
    }
  } else if (header_.arg0 == kAuthPublicKey && !key_was_logged_) {
    // A phone would ask its owner now. Nobody is there to say yes, so the client stays
    // unauthorised.
    key_was_logged_ = true;
    fprintf(stderr, "adbd: %s: not authorised: %s\n", peer_.c_str(),
            DescribeOfferedKey(payload).c_str());
  }
}

void Connection::HandleOpen(std::string_view payload) {
  const uint32_t remote = header_.arg0;
  if (remote == 0) return;
  const std::string destination(payload.substr(0, payload.find('\0')));
  do {
    ++last_local_;
  } while (last_local_ == 0 || streams_.count(last_local_) != 0);
  const uint32_t local = last_local_;

  Stream stream;
  stream.remote = remote;
  try {
    if (streams_.size() < kMaxStreams) {
      stream.service = OpenService(context_, destination, [this, local] {
        Pump(local);
        UpdateInterest();
      });
    }
  } catch (const std::system_error& error) {
    fprintf(stderr, "adbd: %s: cannot open a service: %s\n", peer_.c_str(), error.what());
  }
  if (!stream.service) {
    SendPacket(kClse, 0, remote);
    return;
  }
  streams_.emplace(local, std::move(stream));
  SendPacket(kOkay, local, remote);
  Pump(local);
}

void Connection::HandleWrite(std::string_view payload) {
  Stream* const stream = Find(header_.arg1, header_.arg0);
  if (stream == nullptr) return;  // it crossed our CLSE
  ++stream->okays_owed;
  if (stream->input_at == stream->input.size()) {
    payload.remove_prefix(stream->service->Consume(payload));
  }
  if (stream->input.size() - stream->input_at + payload.size() > kMaxStreamInput) {
    CloseStream(header_.arg1);
    return;
  }
  stream->input.append(payload);
  Pump(header_.arg1);
}

Connection::Stream* Connection::Find(uint32_t local, uint32_t remote) {
  const auto found = streams_.find(local);
  if (found == streams_.end() || found->second.closed) return nullptr;
  return found->second.remote == remote ? &found->second : nullptr;
}

// ---- Sending

void Connection::SendConnect() {
  state_ = State::kOnline;
  SendPacket(kCnxn, kVersion, kMaxPayload, context_.options.banner);
}

void Connection::SendToken() {
  token_ = NewToken();
  SendPacket(kAuth, kAuthToken, 0, token_);
}

void Connection::SendPacket(uint32_t command, uint32_t arg0, uint32_t arg1,
                            std::string_view payload) {
  if (dropped_) return;
  const bool stream_packet = command != kCnxn && command != kAuth;
  const bool without = stream_packet && peer_version_ >= kVersionSkipsChecksum;
  HeaderBytes header = EncodeHeader(command, arg0, arg1, static_cast<uint32_t>(payload.size()),
                                    without ? 0 : Checksum(payload));
  size_t sent = 0;
  if (Queued() == 0) {
    iovec parts[] = {{header.data(), header.size()},
                     {const_cast<char*>(payload.data()), payload.size()}};
    msghdr message{};
    message.msg_iov = parts;
    message.msg_iovlen = 2;
    const ssize_t count = sendmsg(socket_.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    // An error shows up as an event on the socket; here it only means that nothing went out.
    if (count > 0) sent = static_cast<size_t>(count);
  }
  if (sent < header.size()) queue_.append(header.data() + sent, header.size() - sent);
  queue_.append(payload.substr(std::max(sent, header.size()) - header.size()));
}

void Connection::Flush() {
  while (!dropped_ && Queued() > 0) {
    const ssize_t count =
        send(socket_.get(), queue_.data() + queue_at_, Queued(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (count >= 0) {
      queue_at_ += static_cast<size_t>(count);
    } else if (errno == EAGAIN) {
      break;
    } else if (errno != EINTR) {
      Drop(std::string("lost: ") + strerror(errno));
    }
  }
  if (Queued() == 0) {
    queue_.clear();
    queue_at_ = 0;
  }
  while (HasRoom() && !waiting_for_room_.empty()) {
    const uint32_t local = waiting_for_room_.front();
    waiting_for_room_.pop_front();
    const auto found = streams_.find(local);
    if (found == streams_.end()) continue;
    found->second.waits_for_room = false;
    Pump(local);
  }
}

bool Connection::HasRoom() const { return Queued() < kQueueLimit; }

// ---- Streams

void Connection::Pump(uint32_t local) {
  const auto found = streams_.find(local);
  if (dropped_ || found == streams_.end() || found->second.pumping) return;
  Stream& stream = found->second;
  stream.pumping = true;
  while (PumpInput(local, stream) || PumpOutput(local, stream)) {
  }
  stream.pumping = false;
  if (!stream.service->Finished()) return;
  if (stream.closed) {
    Remove(local);
  } else if (stream.may_send) {
    CloseStream(local);  // as a phone does it, only after the last packet was acknowledged
  }
}

// True where the service has taken something.
bool Connection::PumpInput(uint32_t local, Stream& stream) {
  size_t taken = 0;
  if (stream.input_at < stream.input.size()) {
    taken = stream.service->Consume(std::string_view(stream.input).substr(stream.input_at));
    stream.input_at += taken;
  }
  if (stream.input_at == stream.input.size()) {
    stream.input.clear();
    stream.input_at = 0;
    if (stream.closed) {
      stream.service->EndInput();
    } else {
      for (; stream.okays_owed > 0; --stream.okays_owed) SendPacket(kOkay, local, stream.remote);
    }
  }
  return taken > 0;
}

// True where the service had something to send.
bool Connection::PumpOutput(uint32_t local, Stream& stream) {
  if (!stream.may_send) return false;
  if (!HasRoom()) {
    if (!stream.waits_for_room) waiting_for_room_.push_back(local);
    stream.waits_for_room = true;
    return false;
  }
  const size_t count = stream.service->Produce(OutputBuffer(), max_payload_);
  if (count == 0) return false;
  stream.may_send = false;
  SendPacket(kWrte, local, stream.remote, std::string_view(OutputBuffer(), count));
  return true;
}

void Connection::HandleClose(uint32_t local, Stream& stream) {
  if (!stream.service->OutlivesPeer()) {
    CloseStream(local);
    return;
  }
  SendPacket(kClse, local, stream.remote);
  stream.closed = true;
  Pump(local);
}

// Old clients wait for a CLSE, also as the answer to their own.
void Connection::CloseStream(uint32_t local) {
  SendPacket(kClse, local, streams_.at(local).remote);
  Remove(local);
}

void Connection::Remove(uint32_t local) {
  const auto found = streams_.find(local);
  // The call may come from within the service, so it is destroyed later.
  const std::shared_ptr<Service> service = std::move(found->second.service);
  streams_.erase(found);
  context_.loop.Defer([service] {});
}

void Connection::CloseAllStreams() {
  for (auto& [local, stream] : streams_) {
    std::shared_ptr<Service> service = std::move(stream.service);
    context_.loop.Defer([service] {});
  }
  streams_.clear();
  waiting_for_room_.clear();
}

}  // namespace adbd
