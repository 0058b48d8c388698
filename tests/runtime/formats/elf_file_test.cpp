// tests/runtime/formats/elf_file_test.cpp: libraries with one lie each, which a loader believes
#include "formats/elf_file.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <stdexcept>

#include "fakes/fakes.hpp"
#include "formats/elf_image.hpp"

namespace attnrt::core {
namespace {

using ::testing::HasSubstr;

// A good library's bytes, with its tables open to lies.
struct Library {
  std::string bytes = fakes::read_file(fakes::fake("fake_both_hashes"));

  template <class T>
  T* at(uint64_t offset) {
    return reinterpret_cast<T*>(bytes.data() + offset);
  }
  Elf64_Ehdr& header() { return *at<Elf64_Ehdr>(0); }
  Elf64_Phdr* segments() { return at<Elf64_Phdr>(header().e_phoff); }
  // The n-th segment of the type.
  Elf64_Phdr& segment(uint32_t type, int n = 0) {
    for (int i = 0; i < header().e_phnum; ++i) {
      if (segments()[i].p_type == type && n-- == 0) return segments()[i];
    }
    throw std::runtime_error("no such segment");
  }
  Elf64_Phdr& loaded(uint32_t flags) {
    for (int i = 0; i < header().e_phnum; ++i) {
      if (segments()[i].p_type == PT_LOAD && segments()[i].p_flags == flags) return segments()[i];
    }
    throw std::runtime_error("no such segment");
  }
  Elf64_Dyn& dynamic(Elf64_Sxword tag) {
    for (auto* entry = at<Elf64_Dyn>(segment(PT_DYNAMIC).p_offset); entry->d_tag != DT_NULL;
         ++entry) {
      if (entry->d_tag == tag) return *entry;
    }
    throw std::runtime_error("no such entry");
  }
  // The table that an entry of the dynamic table leads to.
  template <class T>
  T* table(Elf64_Sxword tag) {
    const uint64_t address = dynamic(tag).d_un.d_ptr;
    for (int i = 0; i < header().e_phnum; ++i) {
      const Elf64_Phdr& each = segments()[i];
      if (each.p_type == PT_LOAD && holds(each, address, 1))
        return at<T>(each.p_offset + (address - each.p_vaddr));
    }
    throw std::runtime_error("no such table");
  }
  Elf64_Sym& symbol(std::string_view name) {
    const char* strings = table<char>(DT_STRTAB);
    for (auto* each = table<Elf64_Sym>(DT_SYMTAB) + 1;; ++each) {
      if (strings + each->st_name == name) return *each;
    }
  }
  // The relocation of a word.
  Elf64_Rela& relocation(uint64_t address) {
    for (auto* each = table<Elf64_Rela>(DT_RELA);; ++each) {
      if (each->r_offset == address) return *each;
    }
  }
};

std::string judged(const std::function<void(Library&)>& change) {
  Library library;
  change(library);
  const auto read = read_plugin_elf(library.bytes);
  return read ? "accepted" : read.error().message;
}

struct Lie {
  const char* name;
  const char* error;  // a part of it
  std::function<void(Library&)> change;
};

class ElfFile : public ::testing::TestWithParam<Lie> {};

TEST_P(ElfFile, IsRefused) { EXPECT_THAT(judged(GetParam().change), HasSubstr(GetParam().error)); }

const Lie kSegmentLies[] = {
    {"memory_100_gb", "takes more than 2147483648 bytes of memory when it is loaded",
     [](Library& l) { l.loaded(PF_R | PF_W).p_memsz = 100'000'000'000; }},
    {"address", "takes more than 2147483648 bytes",
     [](Library& l) { l.loaded(PF_R | PF_W).p_vaddr += uint64_t{1} << 40; }},
    {"overlap", "its segments overlap",
     [](Library& l) { l.loaded(PF_R | PF_W).p_vaddr = l.loaded(PF_R | PF_X).p_vaddr; }},
    {"alignment", "a segment is aligned to 4097 bytes",
     [](Library& l) { l.loaded(PF_R | PF_X).p_align = 4097; }},
    {"zeros_as_code", "a segment that is not writable has",
     [](Library& l) { l.loaded(PF_R | PF_X).p_filesz -= 16; }},
    {"count", "has 300 segments; at most 128 are accepted",
     [](Library& l) { l.header().e_phnum = 300; }},
    {"no_dynamic", "it has no dynamic tables",
     [](Library& l) { l.segment(PT_DYNAMIC).p_type = PT_NULL; }},
    {"two_dynamic", "it has several dynamic tables",
     [](Library& l) { l.segment(PT_NOTE) = l.segment(PT_DYNAMIC); }},
    {"dynamic_outside", "its dynamic table lies outside the loaded segments",
     [](Library& l) { l.segment(PT_DYNAMIC).p_vaddr += 64; }},
    {"tls_size", "has 1073741824 bytes of thread-local variables",
     [](Library& l) { l.segment(PT_TLS).p_memsz = 1 << 30; }},
    {"tls_place", "its thread-local variables lie outside",
     [](Library& l) {
       l.segment(PT_TLS).p_filesz = l.segment(PT_TLS).p_memsz = 8;
       l.segment(PT_TLS).p_vaddr = 0x100000;
     }},
    {"tls_alignment", "a segment is aligned to 3 bytes",
     [](Library& l) { l.segment(PT_TLS).p_align = 3; }},
    {"relro_over_code", "what becomes read-only after relocation is not in a writable segment",
     [](Library& l) { l.segment(PT_GNU_RELRO).p_vaddr = l.loaded(PF_R | PF_X).p_vaddr; }},
    {"note_outside", "a table of its program headers lies outside",
     [](Library& l) { l.segment(PT_NOTE).p_vaddr += 1 << 20; }},
    {"note_size", "a note reaches past the end of its segment",
     [](Library& l) {
       l.segment(PT_NOTE).p_align = 8;
       l.at<Elf64_Nhdr>(l.segment(PT_NOTE).p_offset)->n_descsz = 0xFFFFFFF8;
     }},
    {"code_without_permission", "is not in a segment of its kind",
     [](Library& l) { l.loaded(PF_R | PF_X).p_flags = PF_R; }},
};

const Lie kDynamicLies[] = {
    {"no_end", "its dynamic table has no end",
     [](Library& l) { l.segment(PT_DYNAMIC).p_filesz = 16 * 5; }},
    {"no_size", "its dynamic table has an entry 0x19, but no 0x1b",
     [](Library& l) { l.dynamic(DT_INIT_ARRAYSZ).d_tag = DT_BIND_NOW; }},
    {"size_alone", "its dynamic table has an entry 0x1b, but no 0x19",
     [](Library& l) {
       l.dynamic(DT_INIT_ARRAY).d_tag = DT_BIND_NOW;
       l.dynamic(DT_INIT_ARRAYSZ).d_un.d_val = uint64_t{1} << 60;
     }},
    {"entry_size", "its dynamic table says 16 for 0x9, expected 24",
     [](Library& l) { l.dynamic(DT_RELAENT).d_un.d_val = 16; }},
    {"kind_of_slots", "its dynamic table says 17 for 0x14, expected 7",
     [](Library& l) { l.dynamic(DT_PLTREL).d_un.d_val = DT_REL; }},
    {"odd_size", "which is no multiple of 24",
     [](Library& l) { l.dynamic(DT_RELASZ).d_un.d_val -= 8; }},
    {"needed", "its dynamic table names a text that is not there",
     [](Library& l) { l.dynamic(DT_NEEDED).d_un.d_val = 1 << 20; }},
    {"strings_without_end", "its table of strings is not in the file, or has no end",
     [](Library& l) { l.dynamic(DT_STRSZ).d_un.d_val -= 1; }},
    {"no_symbols", "its dynamic table names no symbols",
     [](Library& l) { l.dynamic(DT_SYMTAB).d_tag = DT_BIND_NOW; }},
    {"initialiser", "its initialiser is not code",
     [](Library& l) { l.dynamic(DT_INIT).d_un.d_ptr = 0; }},
    {"finaliser", "its finaliser is not code",
     [](Library& l) { l.dynamic(DT_FINI).d_un.d_ptr = l.loaded(PF_R | PF_W).p_vaddr; }},
    {"text_relocations", "has relocations that write to code; build it with -fPIC",
     [](Library& l) { l.dynamic(DT_RELACOUNT).d_tag = DT_TEXTREL; }},
};

const Lie kSymbolLies[] = {
    {"no_buckets", "its hash table leads outside its symbols",
     [](Library& l) { l.table<uint32_t>(DT_GNU_HASH)[0] = 0; }},
    {"filters", "its hash table leads", [](Library& l) { l.table<uint32_t>(DT_GNU_HASH)[2] = 3; }},
    {"first_symbol", "its hash table leads",
     [](Library& l) { l.table<uint32_t>(DT_GNU_HASH)[1] = 1 << 20; }},
    {"hash_buckets", "its hash table leads", [](Library& l) { l.table<uint32_t>(DT_HASH)[0] = 0; }},
    {"hash_cycle", "its hash table leads",
     [](Library& l) {
       auto* hash = l.table<uint32_t>(DT_HASH);
       const uint32_t buckets = hash[0], first = hash[2] != 0 ? hash[2] : hash[3];
       hash[2 + buckets + first] = first;
     }},
    {"hash_size", "its hash table leads",
     [](Library& l) { l.table<uint32_t>(DT_HASH)[1] = 0xFFFFFFF0; }},
    {"name", "a symbol's name lies outside the table of strings",
     [](Library& l) { l.symbol("attnrt_plugin_v1").st_name = 1 << 20; }},
    {"value", "its symbol attnrt_plugin_v1 lies outside the loaded segments",
     [](Library& l) { l.symbol("attnrt_plugin_v1").st_value = 1 << 30; }},
    {"function", "its symbol attnrt_plugin_v1 is no table of a plugin",
     [](Library& l) {
       l.symbol("attnrt_plugin_v1").st_info = ELF64_ST_INFO(STB_GLOBAL, STT_FUNC);
     }},
    {"resolver", "its symbol attnrt_plugin_v1 lies outside",
     [](Library& l) {
       l.symbol("attnrt_plugin_v1").st_info = ELF64_ST_INFO(STB_GLOBAL, STT_GNU_IFUNC);
     }},
    {"hidden", "its symbol free is neither defined nor visible",
     [](Library& l) { l.symbol("free").st_other = STV_HIDDEN; }},
    {"version_index", "its table of symbol versions leads outside",
     [](Library& l) { l.table<uint16_t>(DT_VERSYM)[1] = 999; }},
    {"version_file", "its table of symbol versions leads outside",
     [](Library& l) { l.table<Elf64_Verneed>(DT_VERNEED)->vn_file = 0; }},
    {"version_next", "its table of symbol versions leads outside",
     [](Library& l) { l.table<Elf64_Verneed>(DT_VERNEED)->vn_next = 1 << 30; }},
    {"no_version_index", "has an entry 0x6ffffffe, but no 0x6ffffff0",
     [](Library& l) { l.dynamic(DT_VERSYM).d_tag = DT_BIND_NOW; }},
    {"no_versions", "its symbols have versions that its dynamic table does not name",
     [](Library& l) { l.dynamic(DT_VERNEED).d_tag = DT_BIND_NOW; }},
};

const Lie kRelocationLies[] = {
    {"symbol", "its table of relocations names a symbol that is not there",
     [](Library& l) {
       auto& slot = *l.table<Elf64_Rela>(DT_JMPREL);
       slot.r_info = ELF64_R_INFO(uint64_t{1} << 20, ELF64_R_TYPE(slot.r_info));
     }},
    {"address", "its table of relocations has one whose address lies outside the library",
     [](Library& l) {
       l.relocation(l.symbol("attnrt_plugin_v1").st_value + 8).r_addend = 1 << 30;
     }},
    {"run_is_data", "a function of its attnrt_plugin_v1 is not code",
     [](Library& l) {
       const uint64_t run = l.symbol("attnrt_plugin_v1").st_value + offsetof(attnrt_plugin, run);
       l.relocation(run).r_addend = 0;
     }},
    {"initialiser_is_data", "an entry of its arrays of initialisers and finalisers is not code",
     [](Library& l) { l.relocation(l.dynamic(DT_INIT_ARRAY).d_un.d_ptr).r_addend = 0; }},
    {"initialiser_without", "is not relocated",
     [](Library& l) {
       const Elf64_Phdr& data = l.loaded(PF_R | PF_W);
       l.relocation(l.dynamic(DT_INIT_ARRAY).d_un.d_ptr).r_offset = data.p_vaddr + data.p_memsz - 8;
     }},
    {"into_dynamic", "has one that writes into the dynamic table",
     [](Library& l) { l.table<Elf64_Rela>(DT_RELA)->r_offset = l.segment(PT_DYNAMIC).p_vaddr; }},
    {"twice", "has two for the same address",
     [](Library& l) {
       l.table<Elf64_Rela>(DT_JMPREL)[0].r_offset = l.table<Elf64_Rela>(DT_JMPREL)[1].r_offset;
     }},
    {"odd_slot", "has one for a slot that is not aligned",
     [](Library& l) { l.table<Elf64_Rela>(DT_JMPREL)->r_offset += 2; }},
    {"count", "counts more relative ones than it has",
     [](Library& l) { l.dynamic(DT_RELACOUNT).d_un.d_val += 1; }},
#if defined(__x86_64__)
    {"copy", "has one that copies a symbol",
     [](Library& l) { l.table<Elf64_Rela>(DT_JMPREL)->r_info = ELF64_R_INFO(1, R_X86_64_COPY); }},
    {"resolver", "has a resolver that is not code",
     [](Library& l) {
       l.table<Elf64_Rela>(DT_JMPREL)->r_info = ELF64_R_INFO(0, R_X86_64_IRELATIVE);
     }},
    {"thread_local", "uses thread-local variables, and it has none",
     [](Library& l) { l.segment(PT_TLS).p_type = PT_NULL; }},
#endif
};

std::string name_of(const ::testing::TestParamInfo<Lie>& lie) { return lie.param.name; }
INSTANTIATE_TEST_SUITE_P(Segments, ElfFile, ::testing::ValuesIn(kSegmentLies), name_of);
INSTANTIATE_TEST_SUITE_P(Dynamic, ElfFile, ::testing::ValuesIn(kDynamicLies), name_of);
INSTANTIATE_TEST_SUITE_P(Symbols, ElfFile, ::testing::ValuesIn(kSymbolLies), name_of);
INSTANTIATE_TEST_SUITE_P(Relocations, ElfFile, ::testing::ValuesIn(kRelocationLies), name_of);

TEST(ElfFileAccepts, WhatLinkersWrite) {
  EXPECT_EQ(judged([](Library&) {}), "accepted");
  // Without the older kind of hash table, and without names of sections that nobody needs.
  EXPECT_EQ(judged([](Library& l) { l.dynamic(DT_HASH).d_tag = DT_BIND_NOW; }), "accepted");
  EXPECT_EQ(judged([](Library& l) { l.dynamic(DT_GNU_HASH).d_tag = DT_BIND_NOW; }), "accepted");
  // Symbols that mark the end of the data.
  EXPECT_EQ(judged([](Library& l) {
              Elf64_Sym& symbol = l.symbol("free");
              const Elf64_Phdr& data = l.loaded(PF_R | PF_W);
              symbol.st_shndx = 1;
              symbol.st_value = data.p_vaddr + data.p_memsz;
            }),
            "accepted");
}

}  // namespace
}  // namespace attnrt::core
