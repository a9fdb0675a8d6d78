// Peer of trials/translate.ts: the model's translation path for a request that
// goes through a first stage, the same steps over the same tables, in C.
// lib/sim/vtd says what each step is for. Arguments: pages, milliseconds.
#include "measure.h"

#include <stdint.h>
#include <string.h>

// trials/pages.ts
enum { CALLS = 1024, IOVA_HIGH = 0x7f, IOVA_LOW = 0x40000000 };
enum { SEED = 0x2545f491 };
static const uint64_t kTarget = 0x500000000;

enum { RID = 0x20, NO_PASID = -1, DOMAIN_TAG = 1, LEVELS = 4, HAW = 46 };
enum { WRITE = 1, EXECUTE = 2, PRIVILEGED = 4, TRANSLATED = 8 };
enum { KINDS_WRITE = 0xaa, KINDS_PRIVILEGED = 0xf0, KINDS_ALL = 0xff };
enum { P = 1, RW = 2, US = 4, A = 0x20, D = 0x40, PS = 0x80 };
enum { PAGE_OFFSET = 0xfff, CHUNK_MASK = 0x1fffff };
enum {
  FAULT_ACCESS = 0x70,
  FAULT_NOT_PRESENT,
  FAULT_RESERVED,
  FAULT_NOT_CANONICAL = 0x80,
  FAULT_PERMISSION,
  FAULT_INTERRUPT = 0x87,
};

// memory.ts: an array of 2 MiB chunks, made when first touched.
struct chunk {
  uint32_t *words;
  uint32_t length;
};
struct memory {
  struct chunk *chunks;
  uint32_t count;
  uint64_t next_page;
};

// iotlb.ts
enum { ENTRIES = 4096, TAG_MASK = 0xfff, KIND_FIRST_STAGE = 1 << 8 };
enum { COUNTED = 0xf << 8 };
struct iotlb {
  uint32_t words[4 * ENTRIES];
  int large, first_stage;
};

// paging-structure-cache.ts
enum { SLOTS = 256, STRUCTURE_WORDS = 6, TOP_LEVEL = 5 };
enum { LEVEL_WORDS = SLOTS * STRUCTURE_WORDS, STAGE_FIRST = 1 << 12 };
struct structures {
  uint32_t words[(TOP_LEVEL - 1) * LEVEL_WORDS];
  int level, count;
};

// walk.ts
struct table {
  uint32_t high, low, common;
};
struct visit {
  uint32_t *entry, low;
};
struct walk {
  uint32_t high, low, allowed, visited, leaf;
  int shift, depth, start, leaf_level;
  struct table tables[6];
  struct visit entries[5];
};

// first-stage.ts
struct stage {
  uint32_t root_high, root_low;
  int levels;
  uint32_t reserved_high, reserved_low[12], leaf_levels, accessed;
  uint32_t supervisor_denies, read_only_denies, user_denies;
};

// leaf-rules.ts
struct leaf {
  uint32_t needed, reserved_low, reserved_high, dirty, allowed[8];
  int permission_shift;
};

// pasid-cache.ts and context-cache.ts
struct pasid {
  int rid, pasid;
  uint32_t tag, kinds;
  struct stage first;
  struct leaf leaf;
};
struct context {
  int rid, present, rid_pasid, rid_privileged;
};

// remapper.ts
struct unit {
  struct memory memory;
  struct iotlb iotlb;
  struct structures structures;
  struct context *contexts[256];
  struct pasid *pasids[1024];
  struct walk walk;
  struct pasid *last_entry;
  int enabled, last_rid, last_pasid;
  uint32_t last_tag, last_kind_mask, last_kind_bits;
};

static uint32_t *chunk_at(struct memory *memory, uint32_t high, uint32_t low,
                          uint32_t *length) {
  uint32_t index = (high << 11) | (low >> 21);
  if (index >= memory->count)
    return NULL;
  struct chunk *chunk = &memory->chunks[index];
  if (!chunk->words) {
    chunk->length = (CHUNK_MASK + 1) / 4;
    chunk->words = calloc(chunk->length, 4);
  }
  *length = chunk->length;
  return chunk->words;
}

static uint64_t allocate_page(struct memory *memory) {
  return 4096 * memory->next_page++;
}

static uint32_t slot_of(uint32_t tag, uint32_t word0) {
  return ((word0 ^ (word0 >> 12) ^ (tag * 0x9e5)) & (ENTRIES - 1)) << 2;
}

static int find_slot(const struct iotlb *iotlb, uint32_t tag, uint32_t high,
                     uint32_t low) {
  uint32_t word0 = (high << 20) | (low >> 12), at = slot_of(tag, word0);
  return iotlb->words[at] == word0 &&
                 iotlb->words[at + 1] == ((high & ~TAG_MASK) | tag)
             ? (int)at
             : -1;
}

static void insert(struct iotlb *iotlb, uint32_t tag, uint32_t high,
                   uint32_t low, const struct walk *walk) {
  uint32_t word0 = (high << 20) | (low >> 12);
  uint32_t *words = &iotlb->words[slot_of(tag, word0)];
  uint32_t size = walk->shift == 12 ? 0 : walk->shift == 21 ? 1 : 2;
  uint32_t word2 = (walk->low & ~PAGE_OFFSET) | (size << 10) |
                   KIND_FIRST_STAGE | walk->allowed;
  if ((words[2] ^ word2) & COUNTED) {
    iotlb->large += (size != 0) - (((words[2] >> 10) & 3) != 0);
    iotlb->first_stage += 1 - ((words[2] & KIND_FIRST_STAGE) != 0);
  }
  words[0] = word0;
  words[1] = (high & ~TAG_MASK) | tag;
  words[2] = word2;
  words[3] = walk->high;
}

static uint32_t table_index(int level, uint32_t high, uint32_t low) {
  switch (level) {
  case 1:
    return (low >> 12) & 0x1ff;
  case 2:
    return (low >> 21) & 0x1ff;
  case 3:
    return ((high << 2) | (low >> 30)) & 0x1ff;
  case 4:
    return (high >> 7) & 0x1ff;
  default:
    return (high >> 16) & 0x1ff;
  }
}

static int shift_of(int level) { return 3 + 9 * level; }

static uint32_t prefix_low(int shift, uint32_t high, uint32_t low) {
  return shift < 32 ? (high << (32 - shift)) | (low >> shift)
                    : high >> (shift - 32);
}

static uint32_t second(uint32_t tag, int shift, uint32_t high) {
  return tag | STAGE_FIRST | (shift < 32 ? high >> shift : 0) << 13;
}

static uint32_t structure_slot(int level, uint32_t tag, uint32_t prefix) {
  return (level - 2) * LEVEL_WORDS +
         ((prefix ^ (prefix >> 8) ^ (tag * 0x25)) & (SLOTS - 1)) *
             STRUCTURE_WORDS;
}

static int leaf_table(const struct structures *structures, uint32_t tag,
                      uint32_t high, uint32_t low) {
  uint32_t prefix = (high << 11) | (low >> 21);
  uint32_t at = structure_slot(2, tag, prefix);
  return structures->words[at] == prefix &&
                 structures->words[at + 1] == second(tag, 21, high)
             ? (int)at
             : -1;
}

static int find_structure(struct structures *structures, uint32_t tag,
                          int levels, uint32_t high, uint32_t low) {
  for (int level = 2; level <= levels; level++) {
    int shift = shift_of(level);
    uint32_t prefix = prefix_low(shift, high, low);
    uint32_t at = structure_slot(level, tag, prefix);
    if (structures->words[at] == prefix &&
        structures->words[at + 1] == second(tag, shift, high)) {
      structures->level = level;
      return at;
    }
  }
  return -1;
}

static void remember(struct structures *structures, uint32_t tag, uint32_t high,
                     uint32_t low, const struct walk *walk) {
  for (int level = walk->start; level > walk->leaf_level; level--) {
    int shift = shift_of(level);
    uint32_t prefix = prefix_low(shift, high, low);
    uint32_t *words = &structures->words[structure_slot(level, tag, prefix)];
    structures->count += words[1] == 0;
    words[0] = prefix;
    words[1] = second(tag, shift, high);
    words[2] = walk->tables[level - 1].high;
    words[3] = walk->tables[level - 1].low;
    words[4] = walk->tables[level - 1].common;
    words[5] = 0;
  }
}

static void begin(struct structures *structures, const struct stage *stage,
                  uint32_t tag, uint32_t high, uint32_t low,
                  struct walk *walk) {
  int at = find_structure(structures, tag, stage->levels, high, low);
  walk->depth = 0;
  walk->visited = ~0u;
  if (at < 0) {
    walk->start = stage->levels;
    walk->tables[stage->levels] =
        (struct table){stage->root_high, stage->root_low, RW | US};
    return;
  }
  const uint32_t *words = &structures->words[at];
  walk->start = structures->level - 1;
  walk->tables[walk->start] = (struct table){words[2], words[3], words[4]};
}

static void finish(const struct stage *stage, struct walk *walk, int shift,
                   uint32_t low, uint32_t common, uint32_t high_word,
                   uint32_t low_word) {
  uint32_t mask = shift >= 32 ? 0 : ~0u << shift;
  walk->shift = shift;
  walk->high = high_word & 0xfffff;
  walk->low = (low_word & mask) | (low & ~mask & ~PAGE_OFFSET);
  walk->allowed = KINDS_ALL & ~(common & US ? stage->user_denies
                                            : stage->supervisor_denies);
  if (!(common & RW))
    walk->allowed &= ~stage->read_only_denies;
}

static int walk_first_stage(struct memory *memory,
                            struct structures *structures,
                            const struct stage *stage, uint32_t tag,
                            uint32_t high, uint32_t low, struct walk *walk) {
  int32_t top = (int32_t)high >> (stage->levels == 5 ? 24 : 15);
  if (top != 0 && top != -1)
    return FAULT_NOT_CANONICAL;
  begin(structures, stage, tag, high, low, walk);
  uint32_t table_high = walk->tables[walk->start].high;
  uint32_t table_low = walk->tables[walk->start].low;
  uint32_t common = walk->tables[walk->start].common;
  for (int level = walk->start;; level--) {
    uint32_t length, *words = chunk_at(memory, table_high, table_low, &length);
    uint32_t at =
        ((table_low & CHUNK_MASK) + (table_index(level, high, low) << 3)) >> 2;
    if (!words || at + 1 >= length)
      return FAULT_ACCESS;
    uint32_t entry_low = words[at], entry_high = words[at + 1];
    if (!(entry_low & P))
      return FAULT_NOT_PRESENT;
    int leaf =
        level == 1 || ((entry_low & PS) && ((stage->leaf_levels >> level) & 1));
    if ((entry_low & stage->reserved_low[2 * level + leaf]) ||
        (entry_high & stage->reserved_high))
      return FAULT_RESERVED;
    common &= entry_low;
    walk->entries[walk->depth++] = (struct visit){&words[at], entry_low};
    walk->visited &= entry_low;
    table_high = entry_high & 0xfffff;
    table_low = entry_low & ~0xfffu;
    if (!leaf)
      walk->tables[level - 1] = (struct table){table_high, table_low, common};
    if (leaf) {
      walk->leaf_level = level;
      walk->leaf = entry_low;
      finish(stage, walk, 3 + 9 * level, low, common, entry_high, entry_low);
      return 0;
    }
  }
}

// Accessed and dirty.
static void mark(const struct stage *stage, struct walk *walk, int write) {
  if (!write && !(walk->leaf & D))
    walk->allowed &= ~KINDS_WRITE;
  if (!(stage->accessed & ~walk->visited) && (!write || walk->leaf & D))
    return;
  for (int i = 0; i < walk->depth; i++) {
    uint32_t flags = stage->accessed;
    if (i == walk->depth - 1 && write)
      flags |= D;
    flags &= ~walk->entries[i].low;
    if (flags)
      *walk->entries[i].entry |= flags;
  }
}

static int fill_quickly(struct unit *unit, const struct pasid *entry,
                        uint32_t kind, uint32_t high, uint32_t low) {
  const struct leaf *leaf = &entry->leaf;
  int table = leaf_table(&unit->structures, entry->tag, high, low);
  if (table < 0)
    return 0;
  const uint32_t *cached = &unit->structures.words[table];
  uint32_t length,
      *words = chunk_at(&unit->memory, cached[2], cached[3], &length);
  uint32_t at = ((cached[3] & CHUNK_MASK) >> 2) + ((low >> 11) & 0x3fe);
  if (!words || at + 1 >= length)
    return 0;
  uint32_t entry_low = words[at], entry_high = words[at + 1];
  if ((entry_low & leaf->needed) != leaf->needed ||
      (entry_low & leaf->reserved_low) || (entry_high & leaf->reserved_high))
    return 0;
  uint32_t permissions =
      ((cached[4] & entry_low) >> leaf->permission_shift) & 3;
  uint32_t any_high = (cached[5] | entry_high) >> 31;
  uint32_t allowed =
      leaf->allowed[permissions | (any_high << 2)] & entry->kinds;
  if (!(entry_low & leaf->dirty))
    allowed &= ~KINDS_WRITE;
  uint32_t out_high = entry_high & 0xfffff, out_low = entry_low & ~PAGE_OFFSET;
  if (!((allowed >> kind) & 1) || (out_high == 0 && out_low >> 20 == 0xfee))
    return 0;
  unit->walk.high = out_high;
  unit->walk.low = out_low;
  unit->walk.shift = 12;
  unit->walk.allowed = allowed;
  insert(&unit->iotlb, entry->tag, high, low, &unit->walk);
  return 1;
}

static int fill(struct unit *unit, const struct pasid *entry, uint32_t kind,
                uint32_t high, uint32_t low) {
  struct walk *walk = &unit->walk;
  if (fill_quickly(unit, entry, kind, high, low))
    return 0;
  if (!((entry->kinds >> kind) & 1))
    return FAULT_PERMISSION;
  int fault = walk_first_stage(&unit->memory, &unit->structures, &entry->first,
                               entry->tag, high, low, walk);
  if (fault)
    return fault;
  if (!((walk->allowed >> kind) & 1))
    return FAULT_PERMISSION;
  if (walk->high == 0 && walk->low >> 20 == 0xfee)
    return FAULT_INTERRUPT;
  mark(&entry->first, walk, kind & WRITE);
  if (walk->start != walk->leaf_level)
    remember(&unit->structures, entry->tag, high, low, walk);
  walk->allowed &= entry->kinds;
  insert(&unit->iotlb, entry->tag, high, low, walk);
  return 0;
}

static int find(struct unit *unit, const struct pasid *entry, uint32_t kind,
                uint32_t high, uint32_t low) {
  struct walk *walk = &unit->walk;
  int at = find_slot(&unit->iotlb, entry->tag, high, low);
  if (at < 0 || !((unit->iotlb.words[at + 2] >> kind) & 1))
    return fill(unit, entry, kind, high, low);
  walk->high = unit->iotlb.words[at + 3];
  walk->low = unit->iotlb.words[at + 2] & ~PAGE_OFFSET;
  return 0;
}

static struct pasid *find_entry(struct unit *unit, int rid, int pasid) {
  struct context *context = unit->contexts[(rid ^ (rid >> 8)) & 255];
  if (!context || context->rid != rid || !context->present)
    return NULL;
  int wanted = pasid < 0 ? context->rid_pasid : pasid;
  struct pasid *entry = unit->pasids[(rid ^ wanted) & 1023];
  if (!entry || entry->rid != rid || entry->pasid != wanted)
    return NULL;
  unit->last_entry = entry;
  unit->last_rid = rid;
  unit->last_pasid = pasid;
  unit->last_tag = entry->tag;
  unit->last_kind_mask = pasid < 0 ? WRITE : WRITE | EXECUTE | PRIVILEGED;
  unit->last_kind_bits = pasid < 0 && context->rid_privileged ? PRIVILEGED : 0;
  return entry;
}

static int64_t result_of(const struct unit *unit, int fault, uint32_t low) {
  if (fault)
    return -fault;
  return ((int64_t)unit->walk.high << 32) |
         (unit->walk.low | (low & PAGE_OFFSET));
}

static int64_t resolve(struct unit *unit, int rid, int pasid, uint32_t high,
                       uint32_t low, uint32_t access) {
  if (!unit->enabled)
    return ((int64_t)high << 32) | low;
  if (access & TRANSLATED)
    return -FAULT_PERMISSION;
  struct pasid *entry = find_entry(unit, rid, pasid);
  if (!entry)
    return -FAULT_ACCESS;
  uint32_t kind = (access & unit->last_kind_mask) | unit->last_kind_bits;
  return result_of(unit, find(unit, entry, kind, high, low), low);
}

static int64_t translate(struct unit *unit, int rid, int pasid, uint32_t high,
                         uint32_t low, uint32_t access) {
  if (rid != unit->last_rid || pasid != unit->last_pasid ||
      (access & TRANSLATED))
    return resolve(unit, rid, pasid, high, low, access);
  const uint32_t *words = unit->iotlb.words;
  uint32_t kind = (access & unit->last_kind_mask) | unit->last_kind_bits;
  int at = find_slot(&unit->iotlb, unit->last_tag, high, low);
  if (at < 0 || !((words[at + 2] >> kind) & 1))
    return result_of(unit, fill(unit, unit->last_entry, kind, high, low), low);
  return ((int64_t)words[at + 3] << 32) |
         ((words[at + 2] & ~PAGE_OFFSET) | (low & PAGE_OFFSET));
}

static struct unit *set_up(void) {
  static struct context context = {.rid = RID, .present = 1};
  static struct pasid pasid = {
      .rid = RID, .tag = DOMAIN_TAG, .kinds = KINDS_ALL & ~KINDS_PRIVILEGED};
  struct unit *unit = calloc(1, sizeof *unit);
  unit->memory.count = 32;
  unit->memory.chunks = calloc(unit->memory.count, sizeof(struct chunk));
  unit->memory.next_page = 5;
  struct stage *stage = &pasid.first;
  uint64_t root = allocate_page(&unit->memory);
  stage->root_high = root >> 32;
  stage->root_low = root;
  stage->levels = LEVELS;
  stage->reserved_high = 0xfffff & ~((1u << (HAW - 32)) - 1);
  for (int level = 2; level <= 5; level++) {
    int shift = 12 + 9 * (level - 1);
    stage->reserved_low[2 * level] = PS;
    stage->reserved_low[2 * level + 1] =
        ~(shift >= 32 ? 0 : ~0u << shift) & ~0x1fffu;
  }
  stage->leaf_levels = 1 << 1 | 1 << 2 | 1 << 3;
  stage->accessed = A;
  stage->supervisor_denies = KINDS_ALL & ~KINDS_PRIVILEGED;
  stage->read_only_denies = KINDS_WRITE & ~KINDS_PRIVILEGED;
  struct leaf *leaf = &pasid.leaf;
  leaf->needed = P | A;
  leaf->reserved_high = stage->reserved_high;
  leaf->dirty = D;
  leaf->permission_shift = 1;
  for (int i = 0; i < 8; i++) {
    uint32_t denied = i & 2 ? stage->user_denies : stage->supervisor_denies;
    if (!(i & 1))
      denied |= stage->read_only_denies;
    leaf->allowed[i] = KINDS_ALL & ~denied;
  }
  unit->contexts[RID] = &context;
  unit->pasids[RID] = &pasid;
  unit->enabled = 1;
  unit->last_rid = -1;
  return unit;
}

static void map(struct unit *unit, uint32_t high, uint32_t low,
                uint64_t target) {
  struct stage *stage = &unit->pasids[RID]->first;
  uint64_t table = (uint64_t)stage->root_high << 32 | stage->root_low;
  for (int level = LEVELS;; level--) {
    uint32_t length,
        *words = chunk_at(&unit->memory, table >> 32, table, &length);
    uint32_t *entry =
        &words[((table & CHUNK_MASK) + (table_index(level, high, low) << 3)) >>
               2];
    if (level > 1 && *entry == 0)
      *entry = allocate_page(&unit->memory) | P | RW | US;
    if (level == 1) {
      entry[0] = (uint32_t)target | P | RW | US;
      entry[1] = target >> 32;
      return;
    }
    table = (uint64_t)entry[1] << 32 | (*entry & ~0xfffu);
  }
}

static uint32_t random_state = SEED;

static uint32_t next_random(void) {
  random_state ^= random_state << 13;
  random_state ^= random_state >> 17;
  random_state ^= random_state << 5;
  return random_state;
}

struct work {
  struct unit *unit;
  uint32_t *order;
  int length, at;
  int64_t sum;
};

static void make_order(struct work *work, int pages) {
  work->length = pages < CALLS ? CALLS : pages;
  work->order = malloc(work->length * sizeof *work->order);
  for (int from = 0; from < work->length; from += pages) {
    uint32_t *part = work->order + from;
    for (int i = 0; i < pages; i++)
      part[i] = i;
    for (int i = pages - 1; i > 0; i--) {
      uint32_t j = next_random() % (i + 1), swapped = part[i];
      part[i] = part[j];
      part[j] = swapped;
    }
  }
  for (int i = 0; i < work->length; i++)
    work->order[i] = IOVA_LOW + work->order[i] * 4096 + ((i * 64) & 0xfff);
}

static int64_t step(struct work *work, int i) {
  uint32_t low = work->order[i];
  uint32_t access = (low >> 12) & WRITE;
  return translate(work->unit, RID, NO_PASID, IOVA_HIGH, low, access);
}

static void batch(void *context) {
  struct work *work = context;
  for (int i = work->at; i < work->at + CALLS; i++)
    work->sum += step(work, i);
  work->at = (work->at + CALLS) % work->length;
}

int main(int argc, char **argv) {
  int pages = argc == 3 ? atoi(argv[1]) : 0;
  if (pages < 1 || (pages & (pages - 1)) != 0)
    return 1;
  struct work work = {.unit = set_up()};
  for (int i = 0; i < pages; i++)
    map(work.unit, IOVA_HIGH, IOVA_LOW + 4096u * i,
        kTarget + 4096ull * (pages - 1 - i));
  make_order(&work, pages);
  uint32_t check = 0;
  for (int i = 0; i < work.length; i++) {
    int64_t result = step(&work, i);
    check =
        ((check ^ (uint32_t)result) * 0x1000193u ^ (uint32_t)(result >> 32)) *
        0x1000193u;
  }
  double value = measure(atof(argv[2]), CALLS, batch, &work);
  if (work.sum <= 0)
    return 1;
  report(value, check);
}
