#pragma once

namespace fuzz {

// Makes the working directory the root of this process, for good: whatever the daemon is told to
// write, it writes below. Ends the process where that is not possible.
void enter_sandbox();

}  // namespace fuzz
