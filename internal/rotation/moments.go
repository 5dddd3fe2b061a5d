package rotation

import "slices"

// Moments returns how much errors of rotated columns count, by the moments of the inputs
// of a weight: a rotation makes every column of a block of size columns from all of it,
// each with the same share, so that what reaches it is their mean. A size of 0 is for
// columns as they are. nil says that all count alike.
func Moments(of []float32, size int) []float32 {
	if size > 1 {
		of = slices.Clone(of)
		for at := 0; at < len(of); at += size {
			block := of[at:min(at+size, len(of))]
			sum := 0.0
			for _, m := range block {
				sum += float64(m)
			}
			for i := range block {
				block[i] = float32(sum / float64(len(block)))
			}
		}
	}
	if len(of) == 0 || slices.Min(of) == slices.Max(of) {
		return nil
	}
	return of
}
