//go:build (amd64 || arm64) && !purego

package kernel

func init() {
	for _, c := range others() {
		sets = append(sets, candidate{c.set, c.has})
	}
}
