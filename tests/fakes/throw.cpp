// tests/fakes/throw.cpp: a call into a C++ exception, which no plugin may let out
#include <stdexcept>

extern "C" void fake_throw(const char* where);
void fake_throw(const char* where) { throw std::runtime_error(where); }
