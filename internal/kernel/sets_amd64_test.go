//go:build !purego

package kernel

func init() {
	for _, c := range others() {
		sets = append(sets, candidate{c.set, c.has})
	}
}
