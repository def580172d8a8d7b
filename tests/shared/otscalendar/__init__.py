"""OpenTimestamps calendars and the chain that they write to, as real servers on this machine.

Built on the reference library, so that what they answer is what others make, not what kapsel thinks it is.
"""

from otscalendar.calendar_server import CalendarServer
from otscalendar.chain import Chain, Node

__all__ = ["CalendarServer", "Chain", "Node"]
