// Package openfiles says how many files of a set may be open at a time.
package openfiles

// enough is a number from which on more open files do not help.
const enough = 64

// Most is for files that are read, and for files that are written, each: there are
// others besides, and ordinary limits are 256 to 1024.
func Most() int {
	most := limit()
	if most < 0 {
		return enough
	}
	return int(min(max(most/6, 2), enough))
}
