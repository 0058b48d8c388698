// tests/fakes/throw.cpp: throws the C++ exception that a fake lets cross the plugin boundary
#include <stdexcept>

extern "C" void fake_throw(const char* where);
void fake_throw(const char* where) { throw std::runtime_error(where); }
