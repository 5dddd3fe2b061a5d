//go:build amd64 && !purego

package kernel

// A stripDecoder goes through steps of so many columns.
type stripDecoder func(dst *byte, stride int, words *byte, groups *int32, scales, zeros *float32, steps int)

// stripBy gives whole steps of columns to the assembly, and the rest to the portable
// function.
func stripBy(asm stripDecoder, columns int, rest func(dst []byte, stride int, words []byte, s *Strip)) func(dst []byte, stride int, words []byte, s *Strip) {
	return func(dst []byte, stride int, words []byte, s *Strip) {
		steps := len(words) / (4 * columns)
		if n := steps * columns; n > 0 {
			_, _, _ = dst[(StripRows-1)*stride+2*n-1], s.Groups[n-1], s.Zeros[len(s.Scales)-1]
			asm(&dst[0], stride, &words[0], &s.Groups[0], &s.Scales[0], &s.Zeros[0], steps)
		}
		if n := steps * columns; 4*n < len(words) {
			rest(dst[2*n:], stride, words[4*n:], &Strip{s.Groups[n:], s.Scales, s.Zeros})
		}
	}
}
