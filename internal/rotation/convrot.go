package rotation

import (
	"fmt"
)

// CheckConvRot says why rows of that many columns, 0 for any, cannot be rotated
// in groups of that size.
func CheckConvRot(columns, group int) error {
	if group < 4 || group&(group-1) != 0 || group&0x5555555555555554 == 0 {
		return fmt.Errorf("rotation group %d is not a power of 4", group)
	}
	if columns%group != 0 {
		return fmt.Errorf("rotation groups of %d do not divide %d columns", group, columns)
	}
	return nil
}

// Rotates reports whether there is a rotation of that many values. ComfyUI takes
// powers of 4 alone, see [CheckConvRot]; convert_to_quant takes others of 2.
func Rotates(group int) bool { return group >= 4 && group&(group-1) == 0 }
