from .decode import decode, decode_rows
from .scheme import Scheme, parse
