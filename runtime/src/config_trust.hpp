// runtime/src/config_trust.hpp: the policy's `trust` and `backends.NAME.sha256` as a TrustPolicy
#pragma once

#include <string>
#include <vector>

#include "config.hpp"
#include "formats/yaml.hpp"

namespace attnrt::core {

// Reads the map `trust` over what the policy has: keys and signatures replace, allow merges.
void read_trust(const yaml::Node& map, TrustPolicy& trust, Errors& errors);

// Reads a list of SHA-256 hashes, or one of them, as 64 lowercase digits each. what: its full name
// in messages.
std::vector<std::string> read_hashes(const yaml::Node& list, const std::string& what,
                                     Errors& errors);

}  // namespace attnrt::core
