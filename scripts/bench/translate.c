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
struct iotlb {
  uint32_t words[4 * ENTRIES];
  int large, first_stage;
};

// walk.ts
struct walk {
  uint32_t high, low, allowed;
  int shift, depth;
  uint32_t *entries[5];
};

// first-stage.ts
struct stage {
  uint32_t root_high, root_low;
  int levels;
  uint32_t reserved_high, reserved_low[12], leaf_levels, accessed;
  uint32_t supervisor_denies, read_only_denies, user_denies;
};

// pasid-cache.ts and context-cache.ts
struct pasid {
  int rid, pasid;
  uint32_t tag, kinds;
  struct stage first;
};
struct context {
  int rid, present, rid_pasid, rid_privileged;
};

// remapper.ts
struct unit {
  struct memory memory;
  struct iotlb iotlb;
  struct context *contexts[256];
  struct pasid *pasids[1024];
  struct walk walk;
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
  if (words[1] & TAG_MASK) {
    iotlb->large -= ((words[2] >> 10) & 3) != 0;
    iotlb->first_stage -= (words[2] & KIND_FIRST_STAGE) != 0;
  }
  uint32_t size = walk->shift == 12 ? 0 : walk->shift == 21 ? 1 : 2;
  words[0] = word0;
  words[1] = (high & ~TAG_MASK) | tag;
  words[2] = (walk->low & ~PAGE_OFFSET) | (size << 10) | KIND_FIRST_STAGE |
             walk->allowed;
  words[3] = walk->high;
  iotlb->large += size != 0;
  iotlb->first_stage++;
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

static int walk_first_stage(struct memory *memory, const struct stage *stage,
                            uint32_t high, uint32_t low, struct walk *walk) {
  int32_t top = (int32_t)high >> (stage->levels == 5 ? 24 : 15);
  if (top != 0 && top != -1)
    return FAULT_NOT_CANONICAL;
  uint32_t table_high = stage->root_high, table_low = stage->root_low;
  uint32_t common = RW | US;
  walk->depth = 0;
  for (int level = stage->levels;; level--) {
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
    walk->entries[walk->depth++] = &words[at];
    table_high = entry_high & 0xfffff;
    table_low = entry_low & ~0xfffu;
    if (leaf) {
      finish(stage, walk, 3 + 9 * level, low, common, entry_high, entry_low);
      return 0;
    }
  }
}

// Accessed and dirty.
static void mark(const struct stage *stage, struct walk *walk, int write) {
  for (int i = 0; i < walk->depth; i++) {
    uint32_t flags = stage->accessed;
    if (i == walk->depth - 1 && write)
      flags |= D;
    flags &= ~*walk->entries[i];
    if (flags)
      *walk->entries[i] |= flags;
  }
  if (!(*walk->entries[walk->depth - 1] & D))
    walk->allowed &= ~KINDS_WRITE;
}

static int find(struct unit *unit, const struct pasid *entry, uint32_t kind,
                uint32_t high, uint32_t low) {
  struct walk *walk = &unit->walk;
  int at = find_slot(&unit->iotlb, entry->tag, high, low);
  if (at >= 0 && ((unit->iotlb.words[at + 2] >> kind) & 1)) {
    walk->high = unit->iotlb.words[at + 3];
    walk->low = unit->iotlb.words[at + 2] & ~PAGE_OFFSET;
    return 0;
  }
  if (!((entry->kinds >> kind) & 1))
    return FAULT_PERMISSION;
  int fault = walk_first_stage(&unit->memory, &entry->first, high, low, walk);
  if (fault)
    return fault;
  if (!((walk->allowed >> kind) & 1))
    return FAULT_PERMISSION;
  if (walk->high == 0 && walk->low >> 20 == 0xfee)
    return FAULT_INTERRUPT;
  mark(&entry->first, walk, kind & WRITE);
  walk->allowed &= entry->kinds;
  insert(&unit->iotlb, entry->tag, high, low, walk);
  return 0;
}

static int64_t resolve(struct unit *unit, int rid, int pasid, uint32_t high,
                       uint32_t low, uint32_t access) {
  struct context *context = unit->contexts[(rid ^ (rid >> 8)) & 255];
  if (!context || context->rid != rid || !context->present)
    return -FAULT_ACCESS;
  int wanted = pasid < 0 ? context->rid_pasid : pasid;
  struct pasid *entry = unit->pasids[(rid ^ wanted) & 1023];
  if (!entry || entry->rid != rid || entry->pasid != wanted)
    return -FAULT_ACCESS;
  unit->last_rid = rid;
  unit->last_pasid = pasid;
  unit->last_tag = entry->tag;
  unit->last_kind_mask = pasid < 0 ? WRITE : WRITE | EXECUTE | PRIVILEGED;
  unit->last_kind_bits = pasid < 0 && context->rid_privileged ? PRIVILEGED : 0;
  uint32_t kind = (access & unit->last_kind_mask) | unit->last_kind_bits;
  int fault = find(unit, entry, kind, high, low);
  if (fault)
    return -fault;
  return ((int64_t)unit->walk.high << 32) |
         (unit->walk.low | (low & PAGE_OFFSET));
}

static int64_t translate(struct unit *unit, int rid, int pasid, uint32_t high,
                         uint32_t low, uint32_t access) {
  if (!unit->enabled)
    return ((int64_t)high << 32) | low;
  if (access & TRANSLATED)
    return -FAULT_PERMISSION;
  if (rid == unit->last_rid && pasid == unit->last_pasid) {
    int at = find_slot(&unit->iotlb, unit->last_tag, high, low);
    if (at >= 0) {
      uint32_t word2 = unit->iotlb.words[at + 2];
      uint32_t kind = (access & unit->last_kind_mask) | unit->last_kind_bits;
      if ((word2 >> kind) & 1)
        return ((int64_t)unit->iotlb.words[at + 3] << 32) |
               ((word2 & ~PAGE_OFFSET) | (low & PAGE_OFFSET));
    }
  }
  return resolve(unit, rid, pasid, high, low, access);
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
