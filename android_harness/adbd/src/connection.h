// One client: the handshake, then any number of streams over one socket.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>

#include "event_loop.h"
#include "packet.h"
#include "services.h"
#include "unique_fd.h"

namespace adbd {

class Connection {
 public:
  // `on_dropped` is called once, when the socket is closed and everything that ran is abandoned;
  // the owner then destroys the connection in a deferred task.
  Connection(const Context& context, UniqueFd socket, std::string peer,
             std::function<void()> on_dropped);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  bool Authorized() const { return state_ == State::kOnline; }

  // Closes the socket and all streams. An empty `reason` is not logged.
  void Drop(const std::string& reason);

 private:
  enum class State { kAwaitingConnect, kAwaitingSignature, kOnline };

  struct Stream {
    uint32_t remote = 0;
    std::unique_ptr<Service> service;
    std::string input;  // what the service did not take yet
    size_t input_at = 0;
    uint32_t okays_owed = 0;
    bool may_send = true;  // the peer has acknowledged what we sent last
    bool waits_for_room = false;
    bool closed = false;  // by the peer; the service is finishing on its own
    bool pumping = false;
  };

  void OnEvents(uint32_t events);
  void UpdateInterest();

  void ReadPackets();
  bool AcceptHeader();
  size_t Receive(char* at, size_t wanted);
  void HandlePacket(std::string_view payload);
  void HandleConnect(std::string_view payload);
  void HandleAuth(std::string_view payload);
  void HandleOpen(std::string_view payload);
  void HandleWrite(std::string_view payload);
  Stream* Find(uint32_t local, uint32_t remote);

  void SendConnect();
  void SendToken();
  void SendPacket(uint32_t command, uint32_t arg0, uint32_t arg1, std::string_view payload = {});
  void Flush();
  size_t Queued() const { return queue_.size() - queue_at_; }
  bool HasRoom() const;

  void Pump(uint32_t local);
  bool PumpInput(uint32_t local, Stream& stream);
  bool PumpOutput(uint32_t local, Stream& stream);
  void HandleClose(uint32_t local, Stream& stream);
  void CloseStream(uint32_t local);
  void Remove(uint32_t local);
  void CloseAllStreams();

  const Context& context_;
  UniqueFd socket_;
  const std::string peer_;
  std::function<void()> on_dropped_;
  EventLoop::Watch watch_ = 0;
  State state_ = State::kAwaitingConnect;
  bool dropped_ = false;

  uint32_t peer_version_ = 0;
  uint32_t max_payload_ = kMaxPayloadBeforeHandshake;
  std::string token_;
  int signatures_seen_ = 0;
  bool key_was_logged_ = false;

  HeaderBytes header_bytes_{};
  size_t header_have_ = 0;
  PacketHeader header_{};
  std::unique_ptr<char[]> payload_;
  size_t payload_capacity_ = 0;
  size_t payload_have_ = 0;

  std::string queue_;  // bytes that the socket did not take yet
  size_t queue_at_ = 0;

  std::unordered_map<uint32_t, Stream> streams_;
  uint32_t last_local_ = 0;
  std::deque<uint32_t> waiting_for_room_;
};

}  // namespace adbd
