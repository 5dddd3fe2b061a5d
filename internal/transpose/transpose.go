// Package transpose writes matrices by columns.
package transpose

import (
	"encoding/binary"
	"unsafe"

	"github.com/tensorpress/tensorpress/internal/tile"
)

// Into transposes a matrix of that many columns into the buffer, and returns it.
func Into[T any](buffer *[]T, x []T, columns int) []T {
	turned := tile.Sized(buffer, len(x))
	All(turned, x, len(x)/columns, columns)
	return turned
}

// BytesInto is [Into] for bytes.
func BytesInto(buffer *[]byte, x []byte, columns int) []byte {
	turned, rows := tile.Sized(buffer, len(x)), len(x)/columns
	Bytes(turned, x, rows, columns, rows)
	return turned
}

// All transposes a matrix: it writes its columns one after another.
func All[T any](dst, src []T, rows, columns int) {
	Strided(dst, src, rows, columns, rows)
}

// Strided is [All] with the columns stride elements apart in dst. It takes several rows
// at a time, so that elements written next to each other are still in the nearest
// cache.
func Strided[T any](dst, src []T, rows, columns, stride int) {
	const some = 16
	for from := 0; from < rows; from += some {
		part := src[from*columns : min(from+some, rows)*columns]
		for j := range columns {
			to := dst[j*stride+from:]
			for at, i := j, 0; at < len(part); at, i = at+columns, i+1 {
				to[i] = part[at]
			}
		}
	}
}

// AsArrays reinterprets bytes as elements of two or four bytes.
func AsArrays[T [2]byte | [4]byte](x []byte) []T {
	var some T
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(x))), len(x)/len(some))
}

// Bytes is [Strided] for bytes, in blocks of eight by eight.
func Bytes(dst, src []byte, rows, columns, stride int) {
	const band = 64 // rows whose columns fill a line of the cache
	across := columns &^ 7
	for from := 0; from+8 <= rows; from += band {
		to := min(from+band, rows&^7)
		for j := 0; j < across; j += 8 {
			for i := from; i < to; i += 8 {
				transposeEight(dst[j*stride+i:], src[i*columns+j:], columns, stride)
			}
		}
		for j := across; j < columns; j++ {
			for i := from; i < to; i++ {
				dst[j*stride+i] = src[i*columns+j]
			}
		}
	}
	for i := rows &^ 7; i < rows; i++ {
		for j, c := range src[i*columns : (i+1)*columns] {
			dst[j*stride+i] = c
		}
	}
}

// transposeEight takes eight rows of eight bytes, by halves, by quarters and by
// bytes.
func transposeEight(dst, src []byte, columns, stride int) {
	row := func(i int) uint64 { return binary.LittleEndian.Uint64(src[i*columns:]) }
	x0, x4 := exchange(row(0), row(4), 32, 0x00000000FFFFFFFF)
	x1, x5 := exchange(row(1), row(5), 32, 0x00000000FFFFFFFF)
	x2, x6 := exchange(row(2), row(6), 32, 0x00000000FFFFFFFF)
	x3, x7 := exchange(row(3), row(7), 32, 0x00000000FFFFFFFF)
	x0, x2 = exchange(x0, x2, 16, 0x0000FFFF0000FFFF)
	x1, x3 = exchange(x1, x3, 16, 0x0000FFFF0000FFFF)
	x4, x6 = exchange(x4, x6, 16, 0x0000FFFF0000FFFF)
	x5, x7 = exchange(x5, x7, 16, 0x0000FFFF0000FFFF)
	x0, x1 = exchange(x0, x1, 8, 0x00FF00FF00FF00FF)
	x2, x3 = exchange(x2, x3, 8, 0x00FF00FF00FF00FF)
	x4, x5 = exchange(x4, x5, 8, 0x00FF00FF00FF00FF)
	x6, x7 = exchange(x6, x7, 8, 0x00FF00FF00FF00FF)
	for i, x := range [...]uint64{x0, x1, x2, x3, x4, x5, x6, x7} {
		binary.LittleEndian.PutUint64(dst[i*stride:], x)
	}
}

// exchange swaps the bits of a that are not in low with the bits of b that are, shift
// places apart.
func exchange(a, b uint64, shift uint, low uint64) (uint64, uint64) {
	return a&low | b<<shift&^low, a>>shift&low | b&^low
}
