// tests/runtime/discover_test.cpp: folders of good, odd and broken plugin files
#include "discover.hpp"

#include <elf.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <random>

#include "fakes/fakes.hpp"
#include "support/golden.hpp"
#include "support/sanitized.hpp"
#include "support/test_runtime.hpp"

namespace attnrt::core {
namespace {

using fakes::Directory;
using fakes::fake;
using fakes::read_file;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

// One line for each row, without what differs from build to build.
std::string rows(const Discovery& found, const Directory& directory) {
  std::string text;
  for (const auto& plugin : found.plugins) {
    const std::string file = std::filesystem::path(plugin->path).filename();
    const std::string state = plugin->manifest ? fmt::format("{} {}", plugin->manifest->name,
                                                             plugin->manifest->version_text)
                                               : plugin->fault;
    text += fmt::format("{}: {}\n", file, fakes::replaced(state, directory.text(), "DIR"));
  }
  return text;
}

// A shared library's bytes, with its headers open to lies.
struct Elf {
  std::string bytes = read_file(fake("fake_full"));

  Elf64_Ehdr* header() { return reinterpret_cast<Elf64_Ehdr*>(bytes.data()); }
  Elf64_Phdr* segments() { return reinterpret_cast<Elf64_Phdr*>(bytes.data() + header()->e_phoff); }
  Elf64_Shdr* sections() { return reinterpret_cast<Elf64_Shdr*>(bytes.data() + header()->e_shoff); }
  Elf64_Rela* relocation() {  // the first
    return reinterpret_cast<Elf64_Rela*>(bytes.data() + section(".rela.dyn")->sh_offset);
  }
  // The first segment of this type with these flags.
  Elf64_Phdr* segment(uint32_t type, uint32_t flags = 0) {
    for (int i = 0; i < header()->e_phnum; ++i) {
      if (segments()[i].p_type == type && (segments()[i].p_flags & flags) == flags)
        return &segments()[i];
    }
    throw std::runtime_error("no such segment");
  }
  Elf64_Shdr* section(std::string_view name) {
    for (int i = 0; i < header()->e_shnum; ++i) {
      const Elf64_Shdr& names = sections()[header()->e_shstrndx];
      if (name == bytes.data() + names.sh_offset + sections()[i].sh_name) return &sections()[i];
    }
    throw std::runtime_error("no section " + std::string(name));
  }
};

std::string changed(const std::function<void(Elf&)>& change) {
  Elf elf;
  change(elf);
  return elf.bytes;
}

// The same library with another text in its manifest section (at the end of the file).
std::string with_manifest(const std::string& manifest) {
  Elf elf;
  const uint64_t offset = elf.bytes.size();
  elf.section(".attnrt_manifest")->sh_offset = offset;
  elf.section(".attnrt_manifest")->sh_size = manifest.size();
  elf.section(".attnrt_manifest")->sh_flags = 0;  // it is not loaded
  return elf.bytes + manifest;
}

TEST(Discover, EveryFakeIsARow) {
  const Directory directory;
  for (const auto& entry : std::filesystem::directory_iterator(ATTNRT_FAKES_DIR)) {
    directory.add(entry.path().stem().string());
  }
  const Discovery found = discover({directory.text()}).value();
  EXPECT_THAT(found.warnings, IsEmpty());
  EXPECT_TRUE(testing::matches_golden("discover/fakes.txt", rows(found, directory)));
}

TEST(Discover, BrokenFilesAreRowsWithTheirReasons) {
  const Directory directory, elsewhere;
  const auto& path = directory.path();
  directory.write("text.so", "this is no library\n");
  directory.write("empty.so", "");
  std::filesystem::create_directory(path / "directory.so");
  std::filesystem::create_symlink("nowhere", path / "dangling.so");
  std::filesystem::create_symlink("loop.so", path / "loop.so");
  std::filesystem::create_symlink(elsewhere.add("fake_full"), path / "link_outside.so");
  ASSERT_EQ(mkfifo((path / "fifo.so").c_str(), 0600), 0);

  directory.write("machine.so", changed([](Elf& elf) { elf.header()->e_machine = EM_S390; }));
  directory.write("class.so",
                  changed([](Elf& elf) { elf.header()->e_ident[EI_CLASS] = ELFCLASS32; }));
  directory.write("object.so", changed([](Elf& elf) { elf.header()->e_type = ET_REL; }));
  directory.write("section_table.so",
                  changed([](Elf& elf) { elf.header()->e_shoff = UINT64_MAX - 8; }));
  directory.write("section_count.so", changed([](Elf& elf) { elf.header()->e_shnum = 0xFEFF; }));
  directory.write("section_names.so", changed([](Elf& elf) { elf.header()->e_shstrndx = 0xFEFF; }));
  directory.write("section_size.so",
                  changed([](Elf& elf) { elf.section(".attnrt_manifest")->sh_size = UINT64_MAX; }));
  directory.write("section_offset.so", changed([](Elf& elf) {
                    elf.section(".attnrt_manifest")->sh_offset = UINT64_MAX - 4;
                  }));
  directory.write("symbol_size.so",
                  changed([](Elf& elf) { elf.section(".dynsym")->sh_size = uint64_t{1} << 40; }));
  directory.write("segment_table.so",
                  changed([](Elf& elf) { elf.header()->e_phoff = uint64_t{1} << 40; }));
  directory.write("segment_size.so",
                  changed([](Elf& elf) { elf.segments()[0].p_filesz = uint64_t{1} << 40; }));
  directory.write("dynamic_table.so", changed([](Elf& elf) {
                    auto* entry = reinterpret_cast<Elf64_Dyn*>(elf.bytes.data() +
                                                               elf.section(".dynamic")->sh_offset);
                    while (entry->d_tag != DT_STRTAB) ++entry;
                    entry->d_un.d_ptr = 0x7fffffffffff0000;
                  }));
  directory.write("dynamic_size.so", changed([](Elf& elf) {
                    auto* entry = reinterpret_cast<Elf64_Dyn*>(elf.bytes.data() +
                                                               elf.section(".dynamic")->sh_offset);
                    while (entry->d_tag != DT_RELASZ) ++entry;
                    entry->d_un.d_val = uint64_t{1} << 40;
                  }));
  directory.write("relocation.so", changed([](Elf& elf) { elf.relocation()->r_offset = 8; }));
  directory.write("stack.so",
                  changed([](Elf& elf) { elf.segment(PT_GNU_STACK)->p_flags |= PF_X; }));
  directory.write("no_stack.so",
                  changed([](Elf& elf) { elf.segment(PT_GNU_STACK)->p_type = PT_NULL; }));
  directory.write("segment_memory.so", changed([](Elf& elf) {
                    elf.segments()[0].p_filesz = 100;
                    elf.segments()[0].p_memsz = 99;
                  }));
  directory.write("section_names_size.so", changed([](Elf& elf) {
                    elf.sections()[elf.header()->e_shstrndx].sh_size = 2 << 20;
                    elf.bytes.resize(elf.bytes.size() + (3 << 20));
                  }));
  directory.write("no_segments.so", changed([](Elf& elf) { elf.header()->e_phnum = 0; }));

  directory.write("manifest_10_mb.so", with_manifest("name: huge\n" + std::string(10 << 20, '#')));
  directory.write("manifest_empty.so", with_manifest(""));
  directory.write("manifest_binary.so", with_manifest(std::string("\0\1\2\xFF\xFE", 5)));
  directory.write("manifest_nested.so", with_manifest("supports: " + std::string(5000, '[')));
  directory.write("manifest_no_version.so",
                  with_manifest("name: a\nabi: 1\ndevices: [cpu]\nsupports: [{}]\n"));
  directory.write("manifest_bad_name.so",
                  with_manifest("name: ../a\nversion: 1.0.0\nabi: 1\ndevices: [cpu]\n"));

  const Discovery found = discover({directory.text()}).value();
  const std::string text = fakes::replaced(rows(found, directory), elsewhere.text(), "ELSEWHERE");
  EXPECT_TRUE(testing::matches_golden("discover/broken.txt", text));
  for (const auto& plugin : found.plugins) EXPECT_NE(plugin->fault, "") << plugin->path;
}

TEST(Discover, ARelocationMayWriteUpToTheEndOfAWritableSegment) {
  if (support::kSanitized) GTEST_SKIP() << "its plugins have other relocations at that place";
  for (const int64_t beyond : {-8, -7, 0}) {
    const Directory directory;
    directory.write("plugin.so", changed([beyond](Elf& elf) {
                      const Elf64_Phdr& data = *elf.segment(PT_LOAD, PF_W);
                      // Not one of the first two, which are those of the function arrays.
                      elf.relocation()[2].r_offset = data.p_vaddr + data.p_memsz + beyond;
                    }));
    const Discovery found = discover({directory.text()}).value();
    ASSERT_THAT(found.plugins, SizeIs(1));
    EXPECT_EQ(found.plugins[0]->fault.empty(), beyond == -8) << found.plugins[0]->fault;
  }
}

TEST(Discover, NoTruncationPasses) {
  const std::string whole = read_file(fake("fake_full"));
  const Directory directory;
  size_t count = 0;
  for (size_t length = 0; length < whole.size(); length += length < 1024 ? 16 : 97) {
    directory.write(fmt::format("cut_{:06}.so", length), std::string_view(whole).substr(0, length));
    ++count;
  }
  const Discovery found = discover({directory.text()}).value();
  ASSERT_THAT(found.plugins, SizeIs(count));
  for (const auto& plugin : found.plugins) EXPECT_NE(plugin->fault, "") << plugin->path;
}

TEST(Discover, RandomDamageNeverEndsTheScan) {
  const std::string whole = read_file(fake("fake_full"));
  const Elf layout;
  const uint64_t table = reinterpret_cast<const Elf64_Ehdr*>(layout.bytes.data())->e_shoff;
  std::mt19937_64 random(20261123);
  const Directory directory;
  constexpr size_t kFiles = 400;
  for (size_t file = 0; file < kFiles; ++file) {
    std::string bytes = whole;
    for (int flips = 1 + static_cast<int>(random() % 6); flips > 0; --flips) {
      // A third of them in the ELF header and segments, a third in the section headers, a third
      // anywhere.
      const size_t where = file % 3 == 0   ? random() % 1024
                           : file % 3 == 1 ? table + random() % (bytes.size() - table)
                                           : random() % bytes.size();
      bytes[where] = static_cast<char>(random());
    }
    directory.write(fmt::format("damaged_{:03}.so", file), bytes);
  }
  const Discovery found = discover({directory.text()}).value();
  ASSERT_THAT(found.plugins, SizeIs(kFiles));
  for (const auto& plugin : found.plugins)
    EXPECT_EQ(plugin->fault.empty(), plugin->manifest.has_value());
}

TEST(Discover, LooksOnlyAtFilesNamedSoAndInOrder) {
  const Directory directory;
  directory.add("fake_full", "b.so");
  directory.add("fake_full", "a.so");
  directory.add("fake_full", "c.so.1");
  directory.add("fake_full", ".so");
  std::filesystem::create_directory(directory.path() / "below");
  directory.add("fake_full", "below/d.so");
  EXPECT_EQ(rows(discover({directory.text()}).value(), directory),
            "a.so: fake_full 1.0.0\nb.so: fake_full 1.0.0\n");
}

TEST(Discover, ScansDirectoriesInTheirOrderAndEachOnce) {
  const Directory first, second;
  first.add("fake_full");
  second.add("fake_minimal");
  std::filesystem::create_directory_symlink(first.path(), second.path() / "again");
  const Discovery found =
      discover({second.text(), first.text(), (second.path() / "again").string(), "/no/such/place"})
          .value();
  ASSERT_THAT(found.plugins, SizeIs(2));
  EXPECT_EQ(found.plugins[0]->path, second.path() / "fake_minimal.so");
  EXPECT_EQ(found.plugins[1]->path, first.path() / "fake_full.so");
  ASSERT_THAT(found.warnings, SizeIs(1));
  EXPECT_THAT(found.warnings[0], HasSubstr("/no/such/place"));
}

TEST(Discover, FollowsALinkThatStaysInside) {
  const Directory first, second;
  first.add("fake_full", "real.so");
  std::filesystem::create_symlink(first.path() / "real.so", second.path() / "link.so");
  const Discovery found = discover({first.text(), second.text()}).value();
  ASSERT_THAT(found.plugins, SizeIs(2));
  EXPECT_EQ(found.plugins[1]->fault, "");
  EXPECT_EQ(found.plugins[0]->hash, found.plugins[1]->hash);
}

TEST(Discover, RunsNoPluginCode) {
  const Directory directory;
  directory.add("fake_aborts");
  const Discovery found = discover({directory.text()}).value();
  ASSERT_THAT(found.plugins, SizeIs(1));
  EXPECT_EQ(found.plugins[0]->fault, "");
}

TEST(Discover, TheCheckedBytesStayAndNeedNoDescriptor) {
  const Directory directory;
  const auto path = directory.add("fake_full");
  const std::string before = read_file(path);
  const size_t descriptors = support::open_descriptors();
  const Discovery found = discover({directory.text()}).value();
  ASSERT_THAT(found.plugins, SizeIs(1));
  EXPECT_EQ(support::open_descriptors(), descriptors);
  fakes::overwrite_file(path, "something else");
  EXPECT_EQ(found.plugins[0]->bytes->get()->view(), before);
  EXPECT_EQ(found.plugins[0]->hash.size(), 64u);
}

}  // namespace
}  // namespace attnrt::core
