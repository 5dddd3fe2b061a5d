package pack

// A piece is a run of bits of one value and its place in one word of a block.
type piece struct {
	value, from uint8 // bits from, from+1, … of the value
	word, at    uint8 // lie at bits at, at+1, … of the word
	bits        uint8
}

// A block packs Values codes of one width into Words words.
type block struct {
	values, words int
	pieces        []piece
}

// blocks is SDNQ's bit order for each width. No single rule covers them all: the first
// values are stored whole, each at the bottom of a word, and the last ones are cut into
// pieces that fill the tops of the words.
var blocks = [16]block{
	1:  {8, 1, spread(8, 1, 0)},
	2:  {4, 1, spread(4, 2, 0)},
	3:  {8, 3, three()},
	4:  {2, 1, spread(2, 4, 0)},
	5:  {8, 5, five()},
	6:  {4, 3, tail(6, 3, []piece{{3, 4, 0, 6, 2}, {3, 2, 1, 6, 2}, {3, 0, 2, 6, 2}})},
	7:  {8, 7, topBits(7, 7, 1)},
	9:  {16, 9, nine()},
	10: {8, 5, ten()},
	11: {16, 11, eleven()},
	12: {4, 3, tail(12, 3, []piece{{3, 8, 0, 12, 4}, {3, 4, 1, 12, 4}, {3, 0, 2, 12, 4}})},
	13: {16, 13, thirteen()},
	14: {8, 7, topBits(14, 7, 2)},
	15: {16, 15, topBits(15, 15, 1)},
}

// spread puts n whole values of that width side by side in one word.
func spread(n, width, word uint8) []piece {
	var p []piece
	for v := range n {
		p = append(p, piece{v, 0, word, v * width, width})
	}
	return p
}

// tail puts values 0 to n-1 at the bottom of words 0 to n-1, and adds the pieces in
// rest.
func tail(width, n uint8, rest []piece) []piece {
	var p []piece
	for v := range n {
		p = append(p, piece{v, 0, v, 0, width})
	}
	return append(p, rest...)
}

// topBits cuts the last value into pieces, highest bits first, for the tops of n words.
func topBits(width, n, bits uint8) []piece {
	var rest []piece
	for j := range n {
		rest = append(rest, piece{n, width - bits*(j+1), j, width, bits})
	}
	return tail(width, n, rest)
}

func three() []piece {
	return tail(3, 3, []piece{
		{3, 0, 0, 3, 3}, {4, 0, 1, 3, 3}, {5, 0, 2, 3, 3},
		{6, 0, 0, 6, 2}, {7, 0, 1, 6, 2}, {6, 2, 2, 6, 1}, {7, 2, 2, 7, 1},
	})
}

func five() []piece {
	return tail(5, 5, []piece{
		{5, 0, 0, 5, 3}, {6, 0, 1, 5, 3}, {7, 0, 2, 5, 3},
		{5, 3, 3, 5, 2}, {6, 3, 4, 5, 2}, {7, 4, 3, 7, 1}, {7, 3, 4, 7, 1},
	})
}

func nine() []piece {
	var rest []piece
	for j := range uint8(8) {
		rest = append(rest, piece{8 + j, 0, j, 9, 7}, piece{8 + j, 7, 8, 2 * j, 2})
	}
	return tail(9, 8, rest)
}

func ten() []piece {
	return tail(10, 5, []piece{
		{5, 0, 0, 10, 6}, {6, 0, 1, 10, 6}, {7, 0, 2, 10, 6},
		{5, 6, 3, 10, 4}, {6, 6, 4, 10, 4}, {7, 8, 3, 14, 2}, {7, 6, 4, 14, 2},
	})
}

func eleven() []piece {
	var rest []piece
	for j := range uint8(8) {
		rest = append(rest, piece{8 + j, 0, j, 11, 5})
	}
	for j := range uint8(3) {
		rest = append(rest, piece{8 + j, 5, 8 + j, 0, 6}, piece{11 + j, 5, 8 + j, 6, 6})
	}
	return tail(11, 8, append(rest,
		piece{14, 5, 8, 12, 4}, piece{15, 5, 9, 12, 4}, piece{14, 9, 10, 12, 2}, piece{15, 9, 10, 14, 2}))
}

func thirteen() []piece {
	var rest []piece
	for c := range uint8(3) {
		for t := range uint8(4) {
			rest = append(rest, piece{13 + c, 3 * t, 3*t + c, 13, 3})
		}
		rest = append(rest, piece{13 + c, 12, 12, 13 + c, 1})
	}
	return tail(13, 13, rest)
}
