# ARM64 Linux with the distribution's cross compiler (Debian, Ubuntu: g++-aarch64-linux-gnu).
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
# Programs of this machine, libraries and headers of the other one.
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
