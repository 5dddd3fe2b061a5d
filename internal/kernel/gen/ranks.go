package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// ranks writes the functions that fit codebooks to groups of sorted bfloat16 values.
// The 16 bits of values become keys: integers in the same order.
func (v isa) ranks() {
	v.rankKeys()
	v.rankSort()
	v.rankSums()
	v.rankFind()
	v.rankSteps()
}

// rankKeys makes keys; both zeros get the same key.
func (v isa) rankKeys() {
	v.function("rankKeys", "func(keys *uint16, x *float32, steps int) (rest uint32)",
		"rankKeys"+v.name+" makes keys of that many times 16 values, and returns the bits that some have beyond those of BF16.")
	keys, x, n := param("keys"), param("x"), param("steps")
	zero, rest, flip := v.constant(0), v.constant(0), v.constant(1<<31)
	v.each(n, func(i int) {
		y := v.load(f32, Mem{Base: x, Disp: 4 * i})
		VADDPS(zero, y, y)
		v.or(y, rest, rest)
		v.ascending(y, flip)
		VPSRLD(U8(16), y, y)
		VPMOVDW(y, Mem{Base: keys, Disp: 2 * i})
	}, pointer{keys, 2}, pointer{x, 4})
	VPSLLD(U8(16), rest, rest)
	k, r := K(), GP32()
	VPTESTMD(rest, rest, k)
	KMOVW(k, r)
	Store(r, ReturnIndex(0))
	VZEROUPPER()
	RET()
}

// ascending turns the bits of values into unsigned integers in the same order.
func (v isa) ascending(x, flip VecVirtual) {
	sign := v.vec()
	VPSRAD(U8(31), x, sign)
	v.or(flip, sign, sign)
	v.xor(sign, x, x)
}

// sortedRows is how many rows fit the registers.
const sortedRows = 16

// rankSort sorts columns of 16-bit keys by a network, and at last merges the two
// columns that share 32 bits. A merge begins by comparing rows from both ends. That
// leaves two halves that do not overlap, each made up of two runs in opposite
// directions.
func (v isa) rankSort() {
	v.function("rankSort", "func(x *uint32, rows int)",
		"rankSort"+v.name+" sorts each of 16 columns of pairs, the lower halves of which come first; the rows are 16 times a power of 2.")
	x, all := param("x"), param("rows")
	SHLQ(U8(6), all) // in bytes
	end, size, distance := GP64(), GP64(), GP64()
	LEAQ(Mem{Base: x, Index: all, Scale: 1}, end)
	v.eachChunk("sort", x, end, oddEven(sortedRows))
	MOVQ(U32(uint32(sortedRows*v.width())), size) // bytes of a sorted run
	Label("merge")
	MOVQ(size, distance)
	CMPQ(size, all)
	JE(LabelRef("across"))
	v.flip("flip", x, end, size, v.ordered)
	JMP(LabelRef("distance"))
	Label("across")
	v.flipAcross(x, end, size)
	Label("distance")
	SHRQ(U8(1), distance)
	CMPQ(distance, U32(uint32(sortedRows*v.width())))
	JL(LabelRef("near"))
	v.halve(x, end, distance)
	JMP(LabelRef("distance"))
	Label("near")
	v.eachChunk("chunk", x, end, halving(sortedRows))
	SHLQ(U8(1), size)
	CMPQ(size, all)
	JLE(LabelRef("merge"))
	VZEROUPPER()
	RET()
}

// flipAcross compares the lower halves of rows with the upper halves of rows from the
// other end.
func (v isa) flipAcross(x, end, size Register) {
	half, lower := copied(size), K()
	SHRQ(U8(1), half)
	mask := GP32()
	MOVL(U32(0x55555555), mask)
	KMOVD(mask, lower)
	v.flip("cross", x, end, half, func(low, high VecVirtual) {
		VPROLD(U8(16), high, high)
		v.ordered(low, high)
		other := v.vec()
		VMOVDQA32(low, other)
		VPBLENDMW(low, high, lower, low)
		VPBLENDMW(high, other, lower, high)
		VPROLD(U8(16), high, high)
	})
}

// ordered puts the lesser key of each pair into low and the greater into high.
func (v isa) ordered(low, high VecVirtual) {
	least := v.vec()
	VPMINUW(high, low, least)
	VPMAXUW(high, low, high)
	VMOVDQA32(least, low)
}

// oddEven returns the comparisons of Batcher's odd-even merge sort.
func oddEven(n int) (pairs [][2]int) {
	for p := 1; p < n; p *= 2 {
		for k := p; k > 0; k /= 2 {
			for j := k % p; j+k < n; j += 2 * k {
				for i := range min(k, n-j-k) {
					if (i+j)/(2*p) == (i+j+k)/(2*p) {
						pairs = append(pairs, [2]int{i + j, i + j + k})
					}
				}
			}
		}
	}
	return pairs
}

// halving returns the comparisons that sort two runs in opposite directions.
func halving(n int) (pairs [][2]int) {
	for d := n / 2; d > 0; d /= 2 {
		for i := range n {
			if i&d == 0 {
				pairs = append(pairs, [2]int{i, i + d})
			}
		}
	}
	return pairs
}

// eachChunk compares pairs of rows in every chunk of rows that fits the registers, from
// x to end.
func (v isa) eachChunk(name string, x, end Register, pairs [][2]int) {
	at := copied(x)
	Label(name)
	var rows []VecVirtual
	for i := range sortedRows {
		rows = append(rows, v.load(f32, Mem{Base: at, Disp: i * v.width()}))
	}
	for _, p := range pairs {
		least := v.vec()
		VPMINUW(rows[p[1]], rows[p[0]], least)
		VPMAXUW(rows[p[1]], rows[p[0]], rows[p[1]])
		rows[p[0]] = least
	}
	for i, row := range rows {
		VMOVDQU32(row, Mem{Base: at, Disp: i * v.width()})
	}
	ADDQ(U32(uint32(sortedRows*v.width())), at)
	CMPQ(at, end)
	JL(LabelRef(name))
}

// turnRows is how many pairs of rows a turn of a loop compares.
const turnRows = 8

// flip compares the rows of every two neighbouring runs of size bytes from both ends.
func (v isa) flip(name string, x, end, size Register, compare func(low, high VecVirtual)) {
	at := copied(x)
	Label(name)
	low, high := copied(at), GP64()
	LEAQ(Mem{Base: at, Index: size, Scale: 2}, at)
	MOVQ(at, high)
	Label(name + "Rows")
	SUBQ(U32(uint32(turnRows*v.width())), high)
	for i := range turnRows {
		a, b := Mem{Base: low, Disp: i * v.width()}, Mem{Base: high, Disp: (turnRows - 1 - i) * v.width()}
		y, z := v.load(f32, a), v.load(f32, b)
		compare(y, z)
		VMOVDQU32(y, a)
		VMOVDQU32(z, b)
	}
	ADDQ(U32(uint32(turnRows*v.width())), low)
	CMPQ(low, high)
	JL(LabelRef(name + "Rows"))
	CMPQ(at, end)
	JL(LabelRef(name))
}

// halve compares rows at a distance from each other.
func (v isa) halve(x, end, distance Register) {
	at := copied(x)
	Label("half")
	stop := GP64()
	LEAQ(Mem{Base: at, Index: distance, Scale: 1}, stop)
	Label("halfRows")
	for i := range turnRows {
		a, b := Mem{Base: at, Disp: i * v.width()}, Mem{Base: at, Index: distance, Scale: 1, Disp: i * v.width()}
		y, z := v.load(f32, a), v.load(f32, b)
		v.ordered(y, z)
		VMOVDQU32(y, a)
		VMOVDQU32(z, b)
	}
	ADDQ(U32(uint32(turnRows*v.width())), at)
	CMPQ(at, stop)
	JL(LabelRef("halfRows"))
	ADDQ(distance, at)
	CMPQ(at, end)
	JL(LabelRef("half"))
}

// rankSums extracts a group from blocks of 16 rows that are arranged by groups.
func (v isa) rankSums() {
	v.function("rankSums", "func(keys *uint16, sorted *float32, sums *float64, pairs *uint32, chunks int)",
		"rankSums"+v.name+" writes the keys, values and sums up to each of pairs, first the lower halves: 16 of them, then as many of other groups.")
	keys, sorted, sums, pairs, n := param("keys"), param("sorted"), param("sums"), param("pairs"), param("chunks")
	high, magnitude := v.constant(0xFFFF0000), v.constant(0x7FFF0000)
	p := v.newPrefix()
	for i, name := range []string{"lower", "upper"} {
		at, turns := copied(pairs), copied(n)
		loop(name, turns, func() {
			key, sign := v.load(f32, Mem{Base: at}), v.vec()
			if i == 0 {
				VPSLLD(U8(16), key, key)
			} else {
				v.and(high, key, key)
			}
			VPSRLD(U8(16), key, sign)
			VPMOVDW(sign, Mem{Base: keys})
			VPSRAD(U8(31), key, sign)
			v.and(magnitude, sign, sign)
			v.xor(high, sign, sign)
			v.xor(sign, key, key)
			VMOVUPS(key, Mem{Base: sorted})
			upper := YMM()
			VEXTRACTF64X4(U8(1), key, upper)
			for j, x := range []Op{key.AsY(), upper} {
				VMOVUPD(p.add(x), Mem{Base: sums, Disp: 64 * j})
			}
			ADDQ(U8(32), keys)
			ADDQ(U8(64), sorted)
			ADDQ(U32(128), sums)
			ADDQ(U32(16*64), at)
		})
	}
	VZEROUPPER()
	RET()
}

// prefix computes running sums in double precision.
type prefix struct{ zero, last, total VecVirtual }

func (v isa) newPrefix() prefix {
	p := prefix{v.constant(0), v.constant(7), v.constant(0)}
	VPSRLQ(U8(32), p.last, p.last)
	return p
}

// add returns the running sums up to each of the next 8 values. Only the total depends
// on earlier calls.
func (p prefix) add(x Op) VecVirtual {
	sum, before, all := ZMM(), ZMM(), ZMM()
	VCVTPS2PD(x, sum)
	for _, k := range []uint8{7, 6, 4} {
		VALIGNQ(U8(k), p.zero, sum, before)
		VADDPD(before, sum, sum)
	}
	VPERMPD(sum, p.last, all)
	VADDPD(p.total, sum, sum)
	VADDPD(p.total, all, p.total)
	return sum
}

// Offsets of the fields of Cells.
const (
	levelsAt  = 0
	middlesAt = levelsAt + 4*bookLevels
	endsAt    = middlesAt + 4*bookLevels
	belowAt   = endsAt + 8*bookLevels
	fromAt    = belowAt + 8
	reachAt   = fromAt + 8
	leftAt    = reachAt + 8
	keysAt    = leftAt + 8
	sumsAt    = keysAt + 8
)

// Predicates of comparisons of integers.
const (
	under   = 1
	notOver = 2
	over    = 6
)

// searcher looks up entries at 16 places, which are two vectors of 64-bit lanes.
type searcher struct {
	isa
	zero, flip VecVirtual
	words      [2]VecVirtual // the places of keys among words
}

func (v isa) newSearcher() searcher {
	s := searcher{isa: v, zero: v.constant(0), flip: v.constant(1 << 31)}
	for i := range s.words {
		words := make([]uint16, 32)
		for j := range words {
			words[j] = uint16(2*(j/4+8*i) + 1)
		}
		s.words[i] = ZMM()
		VMOVDQU16(table(fmt.Sprintf("rankWords%d", i), words), s.words[i])
	}
	return s
}

var tables = map[string]Mem{}

// table returns constant words in memory.
func table(name string, words []uint16) Mem {
	if m, known := tables[name]; known {
		return m
	}
	tables[name] = GLOBL(name, RODATA|NOPTR)
	for i, word := range words {
		DATA(2*i, U16(word))
	}
	return tables[name]
}

// keys returns the keys of the greatest bfloat16 values that are not above middles,
// each four times.
func (s searcher) keys(middles VecVirtual) (keys [2]VecVirtual) {
	key, down := ZMM(), ZMM()
	VADDPS(s.zero, middles, key)
	VPSRAD(U8(31), key, down)
	VPSRLD(U8(16), down, down)
	VPADDD(down, key, key)
	s.ascending(key, s.flip)
	for i := range keys {
		keys[i] = ZMM()
		VPERMW(key, s.words[i], keys[i])
	}
	return keys
}

// gather loads 64 bits from each place; size is the distance of places in bytes.
func (s searcher) gather(base Register, disp, size int, places VecVirtual) VecVirtual {
	found, all := ZMM(), K()
	VMOVDQA64(s.zero, found)
	KXNORB(K0, K0, all)
	VPGATHERQQ(Mem{Base: base, Disp: disp, Index: places, Scale: uint8(size)}, all, found)
	return found
}

func (v isa) rankFind() {
	v.function("rankFind", "func(c *byte, half int)",
		"rankFind"+v.name+" counts the values that are not above each of the middles, among twice as many as half.")
	at, half := param("c"), param("half")
	s, keys, again := v.newSearcher(), GP64(), GP64()
	MOVQ(Mem{Base: at, Disp: keysAt}, keys)
	middles := s.keys(v.load(f32, Mem{Base: at, Disp: middlesAt}))
	for i := range middles {
		VPSLLQ(U8(48), middles[i], middles[i])
	}
	places := [2]VecVirtual{v.constant(0), v.constant(0)}
	MOVQ(U32(1), again) // a place is found among one more
	Label("find")
	ahead := ZMM()
	VPBROADCASTQ(half, ahead)
	for i, place := range places {
		at, k := ZMM(), K()
		VPADDQ(ahead, place, at)
		key := s.gather(keys, -2, 2, at)
		VPSLLQ(U8(48), key, key)
		VPCMPUQ(U8(notOver), middles[i], key, k)
		VPADDQ(ahead, place, k, place)
	}
	SHRQ(U8(1), half)
	JNZ(LabelRef("find"))
	MOVQ(U32(1), half)
	DECQ(again)
	JZ(LabelRef("find"))
	for i, place := range places {
		VMOVDQU64(place, Mem{Base: at, Disp: endsAt + 64*i})
	}
	VZEROUPPER()
	RET()
}

// rankSteps moves levels to the means of their cells, and the ends of cells according
// to the middles.
func (v isa) rankSteps() {
	v.function("rankSteps", "func(c *byte)",
		"rankSteps"+v.name+" takes steps until the cells are at rest or none is left, or the next is not for it, which it does not begin.")
	s := v.newStepper()
	Label("step")
	s.means()
	JNZ(LabelRef("leave"))
	VMOVAPS(s.moved, s.levels)
	s.follow(s.keys(s.middles()))
	DECQ(s.left)
	JZ(LabelRef("leave"))
	moved, none := K(), GP32()
	VPTESTMQ(s.moves, s.moves, moved)
	KMOVW(moved, none)
	TESTL(none, none)
	JNZ(LabelRef("step"))
	XORQ(s.left, s.left)
	Label("leave")
	VMOVUPS(s.levels, Mem{Base: s.at, Disp: levelsAt})
	VMOVUPS(s.middles(), Mem{Base: s.at, Disp: middlesAt})
	for i, place := range s.places {
		VMOVDQU64(place, Mem{Base: s.at, Disp: endsAt + 64*i})
	}
	MOVQ(s.left, Mem{Base: s.at, Disp: leftAt})
	VZEROUPPER()
	RET()
}

// stepper is the state of fitting a group.
type stepper struct {
	searcher
	infinity, even, ones   VecVirtual
	half, two, three       VecVirtual
	below, from, reach     VecVirtual
	at, left, sorted, sums Register
	levels, moved          VecVirtual // moved are the levels after this step, until it is certain that the step is valid
	places                 [2]VecVirtual
	moves                  VecVirtual // all moves of places in this step, or'ed
}

func (v isa) newStepper() *stepper {
	s := &stepper{
		searcher: v.newSearcher(), infinity: v.constant(0x7F800000), half: v.constant(0x3F000000), ones: v.constant16(1),
		two: v.constant(2), three: v.constant(3), even: ZMM(), moved: ZMM(), moves: ZMM(), at: param("c"),
	}
	places := make([]uint16, 32)
	for i := range bookLevels {
		places[2*i] = uint16(2 * i)
	}
	VMOVDQU32(table("rankEven", places), s.even)
	VPSRLQ(U8(32), s.two, s.two)
	VPSRLQ(U8(32), s.three, s.three)
	for _, f := range []struct {
		to *VecVirtual
		at int
	}{{&s.below, belowAt}, {&s.from, fromAt}, {&s.reach, reachAt}} {
		*f.to = ZMM()
		VPBROADCASTQ(Mem{Base: s.at, Disp: f.at}, *f.to)
	}
	for _, f := range []struct {
		to *Register
		at int
	}{{&s.left, leftAt}, {&s.sorted, keysAt}, {&s.sums, sumsAt}} {
		*f.to = GP64()
		MOVQ(Mem{Base: s.at, Disp: f.at}, *f.to)
	}
	s.levels = s.load(f32, Mem{Base: s.at, Disp: levelsAt})
	for i := range s.places {
		s.places[i] = ZMM()
		VMOVDQU64(Mem{Base: s.at, Disp: endsAt + 64*i}, s.places[i])
	}
	return s
}

// means computes the means of cells. Its last instruction clears the zero flag if one
// of them is in doubt: because the sums up to the ends of a cell around zero exceed
// what is exact, or because a mean is above the next one.
func (s *stepper) means() {
	doubt := GP32()
	or := func(k Register) {
		r := GP32()
		KMOVW(k, r)
		ORL(r, doubt)
	}
	XORL(doubt, doubt)
	var counts, sums [2]VecVirtual
	lastSum, last := s.zero, s.zero
	for i, place := range s.places {
		sum, before, first, size, k := s.gather(s.sums, 0, 8, place), ZMM(), ZMM(), ZMM(), K()
		counts[i], sums[i] = ZMM(), YMM()
		VALIGNQ(U8(7), lastSum, sum, before)
		VALIGNQ(U8(7), last, place, first)
		VPSUBQ(first, place, counts[i])
		VADDPD(before, sum, size)
		VPCMPQ(U8(under), s.from, first, k)
		VPCMPQ(U8(over), s.below, place, k, k)
		VPTESTMQ(counts[i], counts[i], k, k)
		VCMPPD(U8(more), s.reach, size, k, k)
		or(k)
		VSUBPD(before, sum, before)
		VCVTPD2PS(before, sums[i])
		lastSum, last = sum, place
	}
	mean, count, next, k := ZMM(), counts[0], ZMM(), K()
	VINSERTF64X4(U8(1), sums[1], sums[0].AsZ(), mean)
	VPERMT2D(counts[1], s.even, count)
	VPTESTMD(count, count, k)
	VCVTDQ2PS(count, count)
	VMOVAPS(s.levels, s.moved)
	VDIVPS(count, mean, k, s.moved)
	VALIGND(U8(1), s.moved, s.infinity, next)
	VCMPPS(U8(more), next, s.moved, k)
	or(k)
}

// middles returns the midpoints of neighbouring levels.
func (s *stepper) middles() VecVirtual {
	m := ZMM()
	VALIGND(U8(1), s.levels, s.infinity, m)
	VADDPS(s.levels, m, m)
	VMULPS(s.half, m, m)
	return m
}

// follow moves the ends of cells to those of the keys up to wanted, by up to two places
// at a time.
func (s *stepper) follow(wanted [2]VecVirtual) {
	VMOVDQA64(s.zero, s.moves)
	Label("follow")
	far := GP32()
	XORL(far, far)
	for i, place := range s.places {
		near, k, move, open, r := s.gather(s.sorted, -4, 2, place), K(), ZMM(), K(), GP32()
		VPCMPUW(U8(notOver), wanted[i], near, k)
		VMOVDQU16_Z(s.ones, k, move)
		VPSADBW(s.zero, move, move)
		VPTESTNMQ(s.three, move, open) // 0 or 4 of them
		KMOVW(open, r)
		VPSUBQ(s.two, move, move)
		VPADDQ(move, place, place)
		VPORQ(move, s.moves, s.moves)
		ORL(r, far)
	}
	JNZ(LabelRef("follow"))
}
