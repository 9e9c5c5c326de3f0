# SPDX-License-Identifier: Apache-2.0
"""What stands at the other end of a driver's wire, one file for each driver, named as it is."""
