// Package suggest finds the known words that somebody may have meant by an
// unknown one.
package suggest

import (
	"slices"
	"strings"
)

// most is how many words are suggested at most.
const most = 3

// Words returns the known words with the fewest edits from an unknown one, none
// where all are too far from it. Case and the choice between - and _ are no
// edits.
func Words(word string, known []string) (near []string) {
	word = plain(word)
	least := max(1, (len(word)+1)/3)
	for _, k := range known {
		switch n := edits(word, plain(k)); {
		case n > least || n >= len(word):
		case n < least:
			near, least = []string{k}, n
		case !slices.Contains(near, k):
			near = append(near, k)
		}
	}
	return near[:min(len(near), most)]
}

// Hint is what follows an error about an unknown word: ", did you mean a or b?",
// or nothing.
func Hint(word string, known []string) string {
	return Ask(Words(word, known))
}

// Ask asks whether one of some words was meant; it is "" for none.
func Ask(words []string) string {
	if len(words) == 0 {
		return ""
	}
	return ", did you mean " + list(words, "or") + "?"
}

// list joins words, the last by another.
func list(words []string, joint string) string {
	last := len(words) - 1
	if last <= 0 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:last], ", ") + " " + joint + " " + words[last]
}

// HintOrAll is [Hint], or all of few words where none is near.
func HintOrAll(word string, known []string) string {
	if hint := Hint(word, known); hint != "" {
		return hint
	}
	return ": there are " + list(known, "and")
}

func plain(word string) string { return strings.ReplaceAll(strings.ToLower(word), "-", "_") }

// edits is the least number of letters to insert, drop, replace or swap with
// their neighbour that makes b of a: the optimal string alignment distance.
func edits(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before, last, row = last, row, before
		row[0] = i + 1
		for j := range len(b) {
			same := 1
			if a[i] == b[j] {
				same = 0
			}
			row[j+1] = min(last[j]+same, last[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
	}
	return row[len(b)]
}
