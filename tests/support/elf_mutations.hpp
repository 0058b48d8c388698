// tests/support/elf_mutations.hpp: damages one field of a shared library, chosen by a seed
#pragma once

#include <elf.h>

#include <cstdint>
#include <cstring>
#include <map>
#include <random>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "formats/elf_image.hpp"

namespace attnrt::core::support {

// One field of a table that the loader or the runtime reads.
struct ElfField {
  std::string name;  // "p_vaddr"
  size_t offset = 0;
  size_t bytes = 0;  // 1, 2, 4 or 8
};
// By table: header, segments, dynamic, relocations, symbols, gnu hash, hash, versions, notes,
// strings, manifest, sections. REQUIRES: the library is a good one.
using ElfFields = std::map<std::string, std::vector<ElfField>>;

struct Mutation {
  std::string table, field;
  std::string what;  // "symbols: st_value at 0x2e8: 0x1130 becomes 0x0"
  std::string bytes;
};

class ElfLayout {
 public:
  explicit ElfLayout(const std::string& bytes) : bytes_(bytes) {
    const auto header = entry_of<Elf64_Ehdr>(bytes, 0);
    for (size_t i = 0; i < header.e_phnum; ++i) {
      const size_t at = header.e_phoff + i * sizeof(Elf64_Phdr);
      segments_.push_back(entry_of<Elf64_Phdr>(bytes.substr(at), 0));
    }
    add_headers(header);
    add_dynamic();
    for (const auto& [address, size] : {std::pair(DT_RELA, DT_RELASZ), {DT_JMPREL, DT_PLTRELSZ}})
      add_entries("relocations", offset_of(dynamic_[address]), dynamic_[size] / sizeof(Elf64_Rela),
                  {{"r_offset", 8}, {"r_type", 4}, {"r_symbol", 4}, {"r_addend", 8}});
    add_hash_tables();
    add_versions();
  }

  const ElfFields& fields() const { return fields_; }

 private:
  using Members =
      std::vector<std::pair<const char*, size_t>>;  // names and bytes, one after another

  void add_entries(const std::string& table, size_t at, size_t count, const Members& members) {
    for (size_t i = 0; i < count; ++i) {
      for (const auto& [name, bytes] : members) {
        fields_[table].push_back({name, at, bytes});
        at += bytes;
      }
    }
  }
  size_t offset_of(uint64_t address) const {
    for (const Elf64_Phdr& segment : segments_) {
      if (segment.p_type == PT_LOAD && holds(segment, address, 1))
        return address - segment.p_vaddr + segment.p_offset;
    }
    throw std::runtime_error("no segment has the address");
  }
  template <class T>
  T at(size_t offset) const {
    return entry_of<T>(std::string_view(bytes_).substr(offset), 0);
  }

  void add_headers(const Elf64_Ehdr& header) {
    add_entries("header", 4, 1,
                {{"class", 1}, {"data", 1}, {"version", 1}, {"osabi", 1}, {"abiversion", 1}});
    add_entries("header", 16, 1,
                {{"e_type", 2},
                 {"e_machine", 2},
                 {"e_version", 4},
                 {"e_entry", 8},
                 {"e_phoff", 8},
                 {"e_shoff", 8},
                 {"e_flags", 4},
                 {"e_ehsize", 2},
                 {"e_phentsize", 2},
                 {"e_phnum", 2},
                 {"e_shentsize", 2},
                 {"e_shnum", 2},
                 {"e_shstrndx", 2}});
    add_entries("segments", header.e_phoff, header.e_phnum,
                {{"p_type", 4},
                 {"p_flags", 4},
                 {"p_offset", 8},
                 {"p_vaddr", 8},
                 {"p_paddr", 8},
                 {"p_filesz", 8},
                 {"p_memsz", 8},
                 {"p_align", 8}});
    add_entries("sections", header.e_shoff, header.e_shnum,
                {{"sh_name", 4},
                 {"sh_type", 4},
                 {"sh_flags", 8},
                 {"sh_addr", 8},
                 {"sh_offset", 8},
                 {"sh_size", 8},
                 {"sh_link", 4},
                 {"sh_info", 4},
                 {"sh_addralign", 8},
                 {"sh_entsize", 8}});
    const auto names = at<Elf64_Shdr>(header.e_shoff + header.e_shstrndx * sizeof(Elf64_Shdr));
    for (size_t i = 0; i < header.e_shnum; ++i) {
      const auto section = at<Elf64_Shdr>(header.e_shoff + i * sizeof(Elf64_Shdr));
      const char* name = bytes_.data() + names.sh_offset + section.sh_name;
      if (std::strcmp(name, ".attnrt_manifest") == 0)
        add_entries("manifest", section.sh_offset, section.sh_size, {{"byte", 1}});
      if (section.sh_type == SHT_DYNSYM)
        add_entries("symbols", section.sh_offset, section.sh_size / sizeof(Elf64_Sym),
                    {{"st_name", 4},
                     {"st_info", 1},
                     {"st_other", 1},
                     {"st_shndx", 2},
                     {"st_value", 8},
                     {"st_size", 8}}),
            symbols_ = section.sh_size / sizeof(Elf64_Sym);
    }
    for (const Elf64_Phdr& segment : segments_) {
      if (segment.p_type == PT_NOTE)
        add_entries("notes", segment.p_offset, segment.p_filesz / 4, {{"word", 4}});
    }
  }

  void add_dynamic() {
    for (const Elf64_Phdr& segment : segments_) {
      if (segment.p_type != PT_DYNAMIC) continue;
      size_t count = 0;
      for (Elf64_Dyn entry{1, {}}; entry.d_tag != DT_NULL; ++count) {
        entry = at<Elf64_Dyn>(segment.p_offset + count * sizeof entry);
        dynamic_[entry.d_tag] = entry.d_un.d_val;
      }
      add_entries("dynamic", segment.p_offset, count, {{"d_tag", 8}, {"d_val", 8}});
    }
    add_entries("strings", offset_of(dynamic_[DT_STRTAB]), dynamic_[DT_STRSZ], {{"byte", 1}});
  }

  void add_hash_tables() {
    if (dynamic_.count(DT_HASH) != 0) {
      const size_t hash = offset_of(dynamic_[DT_HASH]);
      add_entries("hash", hash, 2 + at<uint32_t>(hash) + at<uint32_t>(hash + 4), {{"word", 4}});
    }
    size_t gnu = offset_of(dynamic_[DT_GNU_HASH]);
    const auto buckets = at<uint32_t>(gnu), first = at<uint32_t>(gnu + 4),
               filters = at<uint32_t>(gnu + 8);
    add_entries("gnu hash", gnu, 1,
                {{"nbuckets", 4}, {"symoffset", 4}, {"filters", 4}, {"shift", 4}});
    add_entries("gnu hash", gnu += 16, filters, {{"filter", 8}});
    add_entries("gnu hash", gnu += size_t{filters} * 8, buckets, {{"bucket", 4}});
    add_entries("gnu hash", gnu += size_t{buckets} * 4, symbols_ - first, {{"chain", 4}});
  }

  void add_versions() {
    add_entries("versions", offset_of(dynamic_[DT_VERSYM]), symbols_, {{"index", 2}});
    size_t need = offset_of(dynamic_[DT_VERNEED]);
    for (uint32_t next = 1; next != 0; need += next) {
      const auto entry = at<Elf64_Verneed>(need);
      add_entries(
          "versions", need, 1,
          {{"vn_version", 2}, {"vn_cnt", 2}, {"vn_file", 4}, {"vn_aux", 4}, {"vn_next", 4}});
      size_t aux = need + entry.vn_aux;
      for (uint32_t next_aux = 1; next_aux != 0; aux += next_aux) {
        add_entries("versions", aux, 1,
                    {{"vna_hash", 4},
                     {"vna_flags", 2},
                     {"vna_other", 2},
                     {"vna_name", 4},
                     {"vna_next", 4}});
        next_aux = at<Elf64_Vernaux>(aux).vna_next;
      }
      next = entry.vn_next;
    }
  }

  const std::string& bytes_;
  std::vector<Elf64_Phdr> segments_;
  std::map<Elf64_Sxword, uint64_t> dynamic_;
  size_t symbols_ = 0;
  ElfFields fields_;
};

// Another value for a field: an edge, a neighbour, a flipped bit, the value of another field of the
// table, or anything.
inline uint64_t other_value(uint64_t old, uint64_t neighbour, size_t bytes,
                            std::mt19937_64& random) {
  const uint64_t any = random();
  const uint64_t page = 4096;
  const uint64_t values[] = {0,
                             UINT64_MAX,
                             old + 1,
                             old - 1,
                             old + 8 * (1 + any % 8),
                             old - 8 * (1 + any % 8),
                             old ^ uint64_t{1} << any % (8 * bytes),
                             any % 64,
                             any,
                             neighbour,
                             old + page * (1 + any % 16),
                             uint64_t{1} << any % (8 * bytes),
                             100'000'000'000};
  const uint64_t kept = bytes == 8 ? UINT64_MAX : (uint64_t{1} << 8 * bytes) - 1;
  const uint64_t value = values[random() % std::size(values)] & kept;
  return value != old ? value : (old + 1) & kept;
}

// Returns the library with one field changed. Every table is as likely as any other.
inline Mutation mutate(const std::string& good, const ElfFields& fields, uint64_t seed) {
  std::mt19937_64 random(seed);
  auto table = fields.begin();
  std::advance(table, random() % fields.size());
  const ElfField& field = table->second[random() % table->second.size()];
  const ElfField& other = table->second[random() % table->second.size()];
  uint64_t old = 0, neighbour = 0;
  std::memcpy(&old, good.data() + field.offset, field.bytes);
  std::memcpy(&neighbour, good.data() + other.offset, other.bytes);
  const uint64_t value = other_value(old, neighbour, field.bytes, random);
  Mutation mutation{table->first, field.name,
                    fmt::format("{}: {} at {:#x}: {:#x} becomes {:#x}", table->first, field.name,
                                field.offset, old, value),
                    good};
  std::memcpy(mutation.bytes.data() + field.offset, &value, field.bytes);
  return mutation;
}

}  // namespace attnrt::core::support
