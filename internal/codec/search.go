package codec

import (
	"github.com/tensorpress/tensorpress/dtype"
	"github.com/tensorpress/tensorpress/internal/formats/sdnq"
)

// GainsIn reports whether a search finds better scales for layers of an SDNQ dtype.
func GainsIn(t *dtype.Type) bool { return sdnq.GainsIn(t) }

// Gains reports whether a search finds better scales for the layer than the plain ones,
// if settings ask for one.
func Gains(c Codec) bool {
	switch c := c.(type) {
	case withInputScale:
		return Gains(c.Codec)
	case scaleAsInput:
		return Gains(c.Codec)
	case exactZero:
		return Gains(c.Codec)
	case interface{ Gains() bool }:
		return c.Gains()
	}
	return false
}
