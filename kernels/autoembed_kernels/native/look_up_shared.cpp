// Rows of all fields to vectors where rows share what is stored: pairs of rows, and blocks of one pool. See
// look_up_shared.py. Rows are decoded by autoembed_gather_packed, TOGETHER look-ups at a time, so that what it writes
// is combined while it is in the cache.

#include <algorithm>
#include <vector>

#include "halves.h"
#include "packed.h"
#include "shared_rows.h"

using namespace autoembed;

EXPORT int64_t autoembed_gather_packed(const uint8_t* payload, int64_t bytes, const PackedSegments* packed,
                                       const int64_t* segment, const int64_t* row, int64_t count, float* out,
                                       int64_t threads);

namespace {

constexpr int64_t TOGETHER = 1024;
constexpr int64_t BLOCKS_AHEAD = 64;  // blocks of the pool that are fetched while those before are read

// Where a pool of floats lies, and how it is read
struct Pool {
    const uint8_t* first = nullptr;
    int64_t size = 0;  // bytes of a value
    uint8_t kind = FP32;
    bool fits = false;
};

// Values of a block, `count` of them, to out; up to seven more are written
INLINE void read_block(const Pool& pool, int64_t slot, int64_t count, float* out) {
    const uint8_t* at = pool.first + slot * pool.size;
    if (pool.kind == FP32) {
        std::memcpy(out, at, count * sizeof(float));
        return;
    }
    for (int64_t j = 0; j < count; j += 8) {
        const auto bits = load<u16x8>(at + 2 * j);
        store(out + j, pool.kind == FP16 ? from_halves(bits) : from_bfloats(bits));
    }
}

template <typename Row>
class LookUp {
  public:
    LookUp(const uint8_t* payload, int64_t bytes, const PackedSegments& packed, const PackedRows& addresses,
           const SharedRows& shared, const Row* rows, int64_t columns)
        : payload_(payload), bytes_(bytes), packed_(packed), addresses_(addresses), shared_(shared), rows_(rows),
          columns_(columns), buckets_(shared.blocks ? shared.slots - shared.block + 1 : 1) {
        for (int64_t s = 0; s < packed.count; ++s) {
            ids_.emplace_back(shared.ids[s]);
            remainders_.emplace_back(shared.remainders[s]);
            hashes_.emplace_back(addresses.buckets[s]);
            if (shared.how[s] < POOLED || pool_.first) continue;
            pool_.kind = packed.kind[s];
            pool_.size = pool_.kind == FP32 ? 4 : 2;
            pool_.first = payload + packed.base[s];
            // eight halves are read at once
            pool_.fits = packed.base[s] >= 0 && shared.slots >= shared.block &&
                         packed.base[s] + shared.slots * pool_.size <= bytes - 16;
        }
    }

    // Look-ups [start, stop) to out. Returns the first that is out of range, else -1.
    int64_t run(int64_t start, int64_t stop, float* out) {
        expected_.assign(columns_, 0);
        const int64_t most = std::min(TOGETHER, stop - start);
        for (auto* each : {&segment_, &stored_, &paired_, &second_, &where_, &pooled_, &places_}) each->resize(most);
        seconds_.resize(most * packed_.width);
        block_row_.resize(shared_.blocks * shared_.block + 8);
        for (int64_t from = start; from < stop; from += TOGETHER) {
            const int64_t bad = part(from, std::min(TOGETHER, stop - from), out + from * packed_.width);
            if (bad >= 0) return from + bad;
        }
        return -1;
    }

  private:
    int64_t part(int64_t from, int64_t count, float* out) {
        int64_t pairs = 0, pooled = 0;
        for (int64_t n = 0, column = from % columns_; n < count; ++n) {
            const int64_t row = rows_[from + n];
            if (static_cast<uint64_t>(row) >= static_cast<uint64_t>(addresses_.rows)) return n;
            int64_t s = segment_of(row, expected_[column]);
            expected_[column] = s;
            column = column + 1 == columns_ ? 0 : column + 1;
            int64_t read = row;
            if (addresses_.reads_row_0[s]) {
                read = addresses_.field_start[s];
                s = addresses_.field_segment[s];
            }
            const int64_t how = shared_.how[s];
            int64_t place = read - addresses_.start[s];
            if (how >= POOLED) {
                if (!pool_.fits || (how == SIGNED && !has_signature(s, place))) return n;
                pooled_[pooled++] = n;
                // its segment decodes any row that it has, and what is decoded is written over
                segment_[n] = s;
                stored_[n] = 0;
                places_[n] = place;
                continue;
            }
            if (how >= ADD) {
                const auto permuted = ids_[s].remainder(static_cast<uint64_t>(place * shared_.multiplier[s]));
                const auto quotient = remainders_[s].quotient(permuted);
                paired_[pairs] = n;
                where_[pairs] = s;
                second_[pairs++] = shared_.quotients[s] + static_cast<int64_t>(
                                       permuted - quotient * static_cast<uint64_t>(shared_.remainders[s]));
                place = static_cast<int64_t>(quotient);
            } else if (addresses_.hashed[s]) {
                place = hashed(static_cast<uint64_t>(read - addresses_.field_start[s]),
                               static_cast<uint64_t>(addresses_.field[s]), hashes_[s]);
            } else if (addresses_.code_bits[s]) {
                place = addresses_.code(s, place);
            }
            segment_[n] = s;
            stored_[n] = place;
        }
        if (pooled < count) {
            const int64_t bad = gather(segment_, stored_, count, out);
            if (bad >= 0) return bad;
        }
        if (pairs) {
            const int64_t bad = gather(where_, second_, pairs, seconds_.data());
            if (bad >= 0) return paired_[bad];
            combine(pairs, out);
        }
        if (pooled) read_pool(pooled, out);
        return -1;
    }

    int64_t gather(const std::vector<int64_t>& segment, const std::vector<int64_t>& row, int64_t count, float* out) {
        const int64_t result =
            autoembed_gather_packed(payload_, bytes_, &packed_, segment.data(), row.data(), count, out, 1);
        return result < 0 ? -1 - result : -1;
    }

    void combine(int64_t pairs, float* out) const {
        const int64_t width = packed_.width;
        for (int64_t p = 0; p < pairs; ++p) {
            float* __restrict first = out + paired_[p] * width;
            const float* __restrict second = seconds_.data() + p * width;
            const int64_t s = where_[p];
            if (shared_.how[s] == ADD) {
                for (int64_t j = 0; j < width; ++j) first[j] += second[j];
            } else if (shared_.how[s] == MULTIPLY) {
                for (int64_t j = 0; j < width; ++j) first[j] *= second[j];
            } else {
                const int64_t dim = packed_.dim[s];
                std::memcpy(first + dim, second, std::min(dim, width - dim) * sizeof(float));
            }
        }
    }

    bool has_signature(int64_t s, int64_t place) const {
        const int64_t at = shared_.index_at[s] + 8 * place;
        return at >= 0 && at <= shared_.index_bytes - 8;
    }

    void place_blocks(int64_t n, int64_t* begins) const {
        const int64_t s = segment_[n], place = places_[n];
        if (shared_.how[s] == SIGNED) {
            const auto signature = load<int64_t>(shared_.index + shared_.index_at[s] + 8 * place);
            const int64_t* masks = shared_.masks + s * shared_.blocks;
            for (int64_t z = 0; z < shared_.blocks; ++z) begins[z] = signature_slot(signature, masks[z], z, buckets_);
        } else {
            const int64_t row = place + addresses_.start[s] - addresses_.field_start[s];
            for (int64_t z = 0; z < shared_.blocks; ++z)
                begins[z] = pool_slot(row, addresses_.field[s], z, buckets_);
        }
        const int64_t last = shared_.block * pool_.size - 1;
        for (int64_t z = 0; z < shared_.blocks; ++z) {
            const uint8_t* at = pool_.first + begins[z] * pool_.size;
            for (int64_t further = 0; further < last; further += LINE) prefetch(at + further);
            prefetch(at + last);
        }
    }

    void read_pool(int64_t pooled, float* out) {
        const int64_t ahead = std::max<int64_t>(1, BLOCKS_AHEAD / shared_.blocks);
        const int64_t width = packed_.width, ring = ahead + 1;
        begins_.resize(ring * shared_.blocks);
        for (int64_t p = 0; p < std::min(ahead, pooled); ++p)
            place_blocks(pooled_[p], begins_.data() + p % ring * shared_.blocks);
        for (int64_t p = 0; p < pooled; ++p) {
            if (p + ahead < pooled)
                place_blocks(pooled_[p + ahead], begins_.data() + (p + ahead) % ring * shared_.blocks);
            const int64_t* begins = begins_.data() + p % ring * shared_.blocks;
            for (int64_t z = 0; z < shared_.blocks; ++z)
                read_block(pool_, begins[z], shared_.block, block_row_.data() + z * shared_.block);
            float* row = out + pooled_[p] * width;
            std::memcpy(row, block_row_.data(), shared_.dim * sizeof(float));
            std::fill(row + shared_.dim, row + width, 0.0f);
        }
    }

    int64_t segment_of(int64_t row, int64_t expected) const {
        const int64_t* start = addresses_.start;
        const int64_t segments = packed_.count;
        if (start[expected] <= row && (expected + 1 == segments || row < start[expected + 1])) return expected;
        int64_t first = 0;
        for (int64_t count = segments; count > 1;) {
            const int64_t middle = count / 2;
            first += start[first + middle] <= row ? middle : 0;
            count -= middle;
        }
        return first;
    }

    const uint8_t* payload_;
    int64_t bytes_;
    const PackedSegments& packed_;
    const PackedRows& addresses_;
    const SharedRows& shared_;
    const Row* rows_;
    int64_t columns_;
    Divisor buckets_;
    Pool pool_;
    std::vector<Divisor> ids_, remainders_, hashes_;
    std::vector<int64_t> expected_, segment_, stored_, paired_, second_, where_, pooled_, places_, begins_;
    std::vector<float> seconds_, block_row_;
};

}  // namespace

// payload of `bytes` bytes, rows (count,) of all fields, int32 or int64 by row_size -> out (count, width). Returns 0,
// or -1 - place where a row is out of range; out is then undefined.
EXPORT int64_t autoembed_look_up_shared(const uint8_t* payload, int64_t bytes, const PackedSegments* packed,
                                        const PackedRows* addresses, const SharedRows* shared, const void* rows,
                                        int64_t row_size, int64_t count, int64_t columns, float* out,
                                        int64_t threads) {
    columns = std::max<int64_t>(1, std::min(columns, count));
    int64_t first_bad = count;
    const auto all = [&](auto* known) {
        for_ranges(count, threads, [&](int64_t start, int64_t stop) {
            using Row = std::remove_const_t<std::remove_pointer_t<decltype(known)>>;
            const int64_t bad = start < stop ? LookUp<Row>(payload, bytes, *packed, *addresses, *shared, known, columns)
                                                   .run(start, stop, out)
                                             : -1;
            if (bad >= 0) {
#pragma omp critical
                first_bad = std::min(first_bad, bad);
            }
        });
    };
    if (row_size == 4)
        all(static_cast<const int32_t*>(rows));
    else
        all(static_cast<const int64_t*>(rows));
    return first_bad < count ? -1 - first_bad : 0;
}
