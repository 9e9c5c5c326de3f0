# SPDX-License-Identifier: Apache-2.0
"""A Dynamixel bus: Protocol 2.0 through ROBOTIS' SDK, with clocks and errors of our own.

The SDK measures its patience on the wall clock, spins while it waits, drops the status byte of
synchronous reads, and gives up a whole round for one servo that is silent. Packets are still its.
"""

from __future__ import annotations

import contextlib
import select
import struct
import termios
import time
from collections.abc import Iterator, Mapping, Sequence

import serial
from dynamixel_sdk import COMM_RX_CORRUPT, COMM_SUCCESS, PacketHandler, PortHandler

from twinloop.drivers.faults import DeviceLost, DeviceMissing, DriverFault, SampleLost

BAUD_RATES = (9600, 57600, 115200, 1_000_000, 2_000_000, 3_000_000, 4_000_000)
ALERT = 0x80
_ID, _LENGTH, _ERROR, _DATA = 4, 5, 8, 9
_WRITE_TIMEOUT_S = 0.05
_PROBE_S = 0.03
_GONE = (serial.SerialException, OSError, termios.error)
_ERRORS = {
    1: "it failed",
    2: "the instruction is not known",
    3: "the packet was damaged",
    4: "a value is out of range",
    5: "too few bytes",
    6: "a value is beyond its limit",
    7: "the address cannot be written now",
}


class StatusError(DriverFault):
    """A servo understood an instruction and refused it."""


class SteadyPort(PortHandler):
    """A serial port with patience by the steady clock, that sleeps while it waits.

    Args:
        name: device.
        baud_rate: bits a second.
        answer_timeout_s: patience with an answer, beyond the time that its bytes take on the wire.
    """

    def __init__(self, name: str, baud_rate: int, answer_timeout_s: float) -> None:
        super().__init__(name)
        self.is_open = False
        self.baudrate = baud_rate
        self.answer_timeout_s = answer_timeout_s
        self.has_timed_out = False

    def getCurrentTime(self) -> float:  # [ms]
        return time.monotonic() * 1e3

    def setPacketTimeout(self, packet_length: int) -> None:
        wire_ms: float = self.tx_time_per_byte * packet_length
        self.setPacketTimeoutMillis(wire_ms + self.answer_timeout_s * 1e3)

    def setPacketTimeoutMillis(self, msec: float) -> None:
        self.has_timed_out = False
        super().setPacketTimeoutMillis(msec)

    def isPacketTimeout(self) -> bool:
        self.has_timed_out |= self.getTimeSinceStart() > self.packet_timeout
        return self.has_timed_out

    def readPort(self, length: int) -> bytes:
        left_s = (self.packet_timeout - self.getTimeSinceStart()) * 1e-3
        if length > 0 and left_s > 0.0 and not self.ser.in_waiting:
            select.select([self.ser.fileno()], [], [], left_s)
        data: bytes = self.ser.read(length)
        return data

    def setupPort(self, cflag_baud: int) -> bool:
        if self.is_open:
            self.closePort()
        self.ser = serial.Serial(
            port=self.port_name,
            baudrate=cflag_baud,
            timeout=0,
            write_timeout=_WRITE_TIMEOUT_S,
            exclusive=True,
        )
        self.is_open = True
        # FTDI's converters else keep bytes back for 16 ms; those of other makers, and pseudo
        # terminals, do not know the request.
        with contextlib.suppress(OSError, ValueError, NotImplementedError):
            self.ser.set_low_latency_mode(True)
        self.ser.reset_input_buffer()
        self.tx_time_per_byte = 1e4 / self.baudrate  # [ms], ten bits a byte
        return True


class Bus:
    """Reads from and writes to servos by id and address.

    Every method raises DeviceLost where the port is gone.

    Args:
        port: serial device.
        baud_rate: bits a second.
        answer_timeout_s: as `SteadyPort` says.
    """

    def __init__(self, port: str, baud_rate: int, answer_timeout_s: float) -> None:
        self.name = port
        self._port = SteadyPort(port, baud_rate, answer_timeout_s)
        self._packets = PacketHandler(2.0)
        self.damaged = 0

    def open(self) -> None:
        """Open the port.

        Raises:
            DeviceMissing: it is not there, or in use.
        """
        try:
            self._port.openPort()
        except (*_GONE, ValueError) as error:
            self._port.is_open = False
            raise DeviceMissing(f"{self.name} cannot be opened: {error}") from error

    def close(self) -> None:
        """Close the port, whatever became of it."""
        if self._port.is_open:
            with contextlib.suppress(*_GONE):
                self._port.closePort()
            self._port.is_open = False

    def ping(self, servo: int) -> int | None:
        """Return the model number of a servo; None where it does not answer."""
        with self._talking():
            model, result, _ = self._packets.ping(self._port, servo)
        return int(model) if result == COMM_SUCCESS else None

    def baud_rate_of(self, servo: int) -> int | None:
        """Try other baud rates; return the one at which a servo answers, and return to the own."""
        port, own, patience_s = self._port, self._port.baudrate, self._port.answer_timeout_s
        port.answer_timeout_s = max(patience_s, _PROBE_S)
        try:
            for rate in BAUD_RATES:
                if rate == own:
                    continue
                with self._talking():
                    port.setBaudRate(rate)
                if self.ping(servo) is not None:
                    return rate
        finally:
            port.answer_timeout_s = patience_s
            with self._talking():
                port.setBaudRate(own)
        return None

    def read(self, servo: int, address: int, length: int) -> tuple[int, bytes]:
        """Return status byte and data of one servo.

        Raises:
            SampleLost: no answer, or a damaged one.
        """
        with self._talking():
            data, result, status = self._packets.readTxRx(self._port, servo, address, length)
        if result != COMM_SUCCESS or len(data) != length:
            raise SampleLost(f"servo {servo} {self._complaint(result)}")
        return int(status), bytes(data)

    def write(self, servo: int, address: int, data: bytes) -> None:
        """Write to one servo, which confirms it; an answer that is lost is asked for once more.

        Raises:
            SampleLost: no answer, or a damaged one.
            StatusError: it refuses.
        """
        for attempt in (1, 2):
            with self._talking():
                result, status = self._packets.writeTxRx(
                    self._port, servo, address, len(data), list(data)
                )
            if result == COMM_SUCCESS:
                break
            if attempt == 2:
                raise SampleLost(f"servo {servo} {self._complaint(result)}")
        if status & ~ALERT:
            raise StatusError(
                f"servo {servo} refuses {data.hex()} at address {address}: "
                f"{_ERRORS.get(status & ~ALERT, 'unknown error')}"
            )

    def reboot(self, servo: int) -> None:
        """Have a servo start anew; it is silent for a while."""
        with self._talking():
            self._packets.reboot(self._port, servo)

    def sync_read(
        self, servos: Sequence[int], address: int, length: int
    ) -> dict[int, tuple[int, bytes]]:
        """Read from many servos at once; status byte and data of those that answered well."""
        answers: dict[int, tuple[int, bytes]] = {}
        wanted = set(servos)
        with self._talking():
            sent = self._packets.syncReadTx(
                self._port, address, length, list(servos), len(servos), False
            )
            while sent == COMM_SUCCESS and wanted - answers.keys():
                packet, result = self._packets.rxPacket(self._port, False)
                if result == COMM_SUCCESS and packet[_ID] in wanted:
                    (body,) = struct.unpack_from("<H", bytes(packet), _LENGTH)
                    if body == length + 4:
                        data = bytes(packet[_DATA : _DATA + length])
                        answers[packet[_ID]] = (packet[_ERROR], data)
                elif result == COMM_RX_CORRUPT and not self._port.has_timed_out:
                    self.damaged += 1
                elif result != COMM_SUCCESS:
                    break
        return answers

    def sync_write(self, address: int, data: Mapping[int, bytes]) -> None:
        """Write to many servos at once, as many bytes to each; nobody confirms it."""
        length = len(next(iter(data.values())))
        parameters = [byte for servo, each in data.items() for byte in (servo, *each)]
        with self._talking():
            self._packets.syncWriteTxOnly(self._port, address, length, parameters, len(parameters))

    def _complaint(self, result: int) -> str:
        if result == COMM_RX_CORRUPT:
            self.damaged += 1
            return "gave a damaged answer"
        return "does not answer"

    @contextlib.contextmanager
    def _talking(self) -> Iterator[None]:
        """Turn what a port that is gone raises into DeviceLost."""
        if not self._port.is_open:
            raise DeviceLost(f"{self.name} is closed")
        try:
            yield
        except serial.SerialTimeoutException as error:
            raise SampleLost(f"{self.name} takes nothing: {error}") from error
        except _GONE as error:
            raise DeviceLost(f"{self.name} is gone: {error}") from error
        finally:
            self._port.is_using = False
