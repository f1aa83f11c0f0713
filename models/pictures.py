"""Small pictures of our own making for the image model's samples: ten kinds of things, drawn with random shapes,
colours and places. Used by samples.py; the same seed gives the same pictures."""

import io
import math
import random
from collections.abc import Callable

from PIL import Image, ImageDraw, ImageFilter

SIZE, SCALE = 64, 6  # drawn large, then made small, for smooth edges
Colour = tuple[int, int, int]
Point = tuple[float, float]


class Sheet:
    """A drawing surface in units of 0..1, from the top left corner, with a random source of its own."""

    def __init__(self, rng: random.Random, top: Colour, bottom: Colour, horizon: float) -> None:
        """Sky in `top`, ground in `bottom` below the height `horizon`, both fading a little."""
        self.rng = rng
        self.image = Image.new("RGB", (SIZE * SCALE, SIZE * SCALE))
        self.draw = ImageDraw.Draw(self.image)
        for y in range(SIZE * SCALE):
            above = y / (SIZE * SCALE) < horizon
            fade = 40 * y / (SIZE * SCALE)
            self.draw.line([(0, y), (SIZE * SCALE, y)], fill=shaded(top, fade) if above else shaded(bottom, fade - 20))

    def polygon(self, points: list[Point], colour: Colour) -> None:
        self.draw.polygon([(x * SIZE * SCALE, y * SIZE * SCALE) for x, y in points], fill=colour)

    def ellipse(self, x: float, y: float, across: float, down: float, colour: Colour) -> None:
        """An ellipse around (x, y)."""
        box = (x - across / 2, y - down / 2, x + across / 2, y + down / 2)
        self.draw.ellipse([part * SIZE * SCALE for part in box], fill=colour)

    def line(self, points: list[Point], width: float, colour: Colour) -> None:
        scaled = [(x * SIZE * SCALE, y * SIZE * SCALE) for x, y in points]
        self.draw.line(scaled, fill=colour, width=round(width * SIZE * SCALE), joint="curve")

    def finish(self) -> bytes:
        """As PNG: mirrored half of the time, turned a little, softened."""
        corner = self.image.getpixel((2, 2))
        image = self.image.rotate(self.rng.uniform(-4, 4), Image.Resampling.BICUBIC, fillcolor=corner)
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if self.rng.random() < 0.5 else image
        image = image.filter(ImageFilter.GaussianBlur(SCALE * 0.7)).resize((SIZE, SIZE), Image.Resampling.LANCZOS)
        body = io.BytesIO()
        image.save(body, "PNG", optimize=True)
        return body.getvalue()


def shaded(colour: Colour, by: float) -> Colour:
    """Lighter by so much, or darker if it is negative."""
    red, green, blue = (min(255, max(0, round(part + by))) for part in colour)
    return red, green, blue


def pick(rng: random.Random, *colours: Colour) -> Colour:
    """One of the colours, slightly changed."""
    red, green, blue = rng.choice(colours)
    return shaded((red + rng.randint(-12, 12), green + rng.randint(-12, 12), blue + rng.randint(-12, 12)), 0)


# ---------- things that drive, fly and float ----------
def airplane(rng: random.Random) -> bytes:
    sky = pick(rng, (90, 150, 225), (120, 175, 235), (165, 195, 225))
    sheet = Sheet(rng, sky, sky, 1.0)
    body, y = pick(rng, (235, 235, 238), (215, 220, 228), (245, 245, 245)), rng.uniform(0.45, 0.55)
    sheet.polygon([(0.42, y), (0.62, y), (0.80, y + 0.27), (0.72, y + 0.27)], shaded(body, -50))
    sheet.polygon([(0.44, y - 0.02), (0.58, y - 0.02), (0.70, y - 0.20), (0.64, y - 0.20)], shaded(body, -35))
    sheet.ellipse(0.5, y, 0.84, 0.12, body)
    sheet.polygon([(0.76, y), (0.92, y), (0.97, y - 0.22), (0.88, y - 0.22)], pick(rng, (200, 40, 40), (30, 60, 150), body))
    sheet.line([(0.2, y - 0.015), (0.75, y - 0.015)], 0.012, (60, 80, 110))
    sheet.ellipse(0.56, y + 0.09, 0.12, 0.05, shaded(body, -80))
    return sheet.finish()


def automobile(rng: random.Random) -> bytes:
    sheet = Sheet(rng, pick(rng, (200, 205, 205), (150, 165, 150), (225, 225, 225)), pick(rng, (110, 110, 112), (140, 138, 132)), 0.62)
    paint, low = pick(rng, (200, 25, 30), (30, 60, 160), (235, 200, 30), (190, 195, 200), (30, 32, 36)), 0.72
    sheet.ellipse(0.5, low + 0.08, 0.9, 0.08, (50, 50, 52))
    sheet.polygon([(0.06, low), (0.08, 0.55), (0.26, 0.50), (0.36, 0.33), (0.66, 0.33), (0.80, 0.50), (0.94, 0.54), (0.95, low)], paint)
    sheet.polygon([(0.31, 0.49), (0.38, 0.37), (0.49, 0.37), (0.49, 0.49)], (45, 60, 75))
    sheet.polygon([(0.52, 0.49), (0.52, 0.37), (0.64, 0.37), (0.73, 0.49)], (45, 60, 75))
    sheet.line([(0.08, 0.62), (0.93, 0.62)], 0.012, shaded(paint, -50))
    for x in (0.25, 0.75):
        sheet.ellipse(x, low, 0.20, 0.20, (22, 22, 24))
        sheet.ellipse(x, low, 0.10, 0.10, (175, 178, 182))
    sheet.ellipse(0.92, 0.58, 0.05, 0.05, (250, 245, 205))
    return sheet.finish()


def ship(rng: random.Random) -> bytes:
    sheet = Sheet(rng, pick(rng, (150, 190, 230), (185, 205, 225)), pick(rng, (35, 80, 130), (50, 100, 140)), 0.62)
    hull = pick(rng, (35, 40, 60), (150, 35, 35), (225, 228, 232))
    sheet.polygon([(0.06, 0.54), (0.95, 0.51), (0.84, 0.72), (0.14, 0.72)], hull)
    sheet.polygon([(0.09, 0.665), (0.89, 0.665), (0.84, 0.72), (0.14, 0.72)], pick(rng, (140, 30, 30), (60, 60, 70)))
    sheet.polygon([(0.20, 0.54), (0.20, 0.42), (0.66, 0.42), (0.70, 0.53)], (240, 240, 242))
    sheet.polygon([(0.28, 0.42), (0.28, 0.32), (0.54, 0.32), (0.56, 0.42)], (228, 230, 235))
    sheet.polygon([(0.36, 0.32), (0.37, 0.18), (0.46, 0.18), (0.47, 0.32)], pick(rng, (190, 50, 40), (40, 50, 80)))
    sheet.line([(0.76, 0.52), (0.76, 0.22)], 0.012, (90, 90, 95))
    for x in (0.25, 0.33, 0.41, 0.49, 0.57):
        sheet.ellipse(x, 0.47, 0.035, 0.035, (70, 90, 115))
    for _ in range(9):
        x, y = rng.random(), rng.uniform(0.75, 0.98)
        sheet.line([(x, y), (x + 0.14, y)], 0.010, (120, 155, 185))
    return sheet.finish()


def truck(rng: random.Random) -> bytes:
    sheet = Sheet(rng, pick(rng, (185, 205, 225), (205, 210, 212)), pick(rng, (112, 110, 108), (135, 130, 120)), 0.70)
    cab, box = pick(rng, (200, 35, 30), (35, 75, 165), (235, 180, 35)), pick(rng, (232, 233, 235), (200, 205, 212), (215, 150, 60))
    sheet.polygon([(0.05, 0.68), (0.05, 0.22), (0.64, 0.22), (0.64, 0.68)], box)
    sheet.line([(0.05, 0.45), (0.64, 0.45)], 0.02, shaded(box, -35))
    sheet.polygon([(0.66, 0.74), (0.66, 0.33), (0.82, 0.33), (0.92, 0.52), (0.95, 0.74)], cab)
    sheet.polygon([(0.72, 0.50), (0.72, 0.38), (0.80, 0.38), (0.87, 0.50)], (50, 65, 80))
    sheet.polygon([(0.05, 0.68), (0.95, 0.68), (0.95, 0.75), (0.05, 0.75)], (45, 45, 48))
    for x in (0.17, 0.34, 0.79):
        sheet.ellipse(x, 0.77, 0.17, 0.17, (24, 24, 26))
        sheet.ellipse(x, 0.77, 0.07, 0.07, (165, 168, 172))
    return sheet.finish()


# ---------- animals ----------
def bird(rng: random.Random) -> bytes:
    ground = pick(rng, (110, 150, 90), (170, 185, 165), (125, 130, 95))
    sheet = Sheet(rng, ground, ground, 1.0)
    coat = pick(rng, (120, 90, 60), (60, 90, 150), (170, 80, 50), (95, 95, 100))
    sheet.line([(0.05, 0.83), (0.95, 0.79)], 0.035, (85, 65, 45))
    sheet.polygon([(0.58, 0.58), (0.93, 0.80), (0.86, 0.87), (0.50, 0.66)], shaded(coat, -35))
    sheet.ellipse(0.48, 0.54, 0.42, 0.34, coat)
    sheet.ellipse(0.41, 0.60, 0.28, 0.24, pick(rng, (235, 215, 180), (225, 225, 215), (220, 150, 90)))
    sheet.polygon([(0.45, 0.45), (0.74, 0.55), (0.60, 0.68), (0.44, 0.60)], shaded(coat, -25))
    sheet.ellipse(0.33, 0.34, 0.23, 0.22, coat)
    sheet.polygon([(0.23, 0.31), (0.10, 0.36), (0.23, 0.39)], (225, 165, 50))
    sheet.ellipse(0.30, 0.32, 0.04, 0.04, (10, 10, 10))
    for x in (0.44, 0.52):
        sheet.line([(x, 0.69), (x, 0.81)], 0.016, (150, 100, 50))
    return sheet.finish()


def cat(rng: random.Random) -> bytes:
    wall = pick(rng, (175, 160, 145), (140, 150, 165), (205, 190, 170))
    sheet = Sheet(rng, wall, shaded(wall, -50), 0.80)
    coat = pick(rng, (120, 115, 110), (205, 140, 75), (70, 66, 64), (160, 140, 120))
    sheet.ellipse(0.5, 0.86, 0.62, 0.60, coat)
    for side in (-1, 1):
        sheet.polygon([(0.5 + side * 0.27, 0.40), (0.5 + side * 0.25, 0.08), (0.5 + side * 0.06, 0.26)], coat)
        sheet.polygon([(0.5 + side * 0.23, 0.33), (0.5 + side * 0.22, 0.16), (0.5 + side * 0.11, 0.27)], (215, 160, 150))
    sheet.ellipse(0.5, 0.45, 0.58, 0.50, coat)
    for x in (0.44, 0.5, 0.56):
        sheet.line([(x, 0.22), (x, 0.32)], 0.02, shaded(coat, -45))
    sheet.ellipse(0.5, 0.56, 0.28, 0.20, shaded(coat, 60))
    for side in (-1, 1):
        sheet.ellipse(0.5 + side * 0.13, 0.42, 0.12, 0.10, pick(rng, (165, 190, 70), (215, 180, 60)))
        sheet.ellipse(0.5 + side * 0.13, 0.42, 0.04, 0.10, (10, 10, 10))
        sheet.line([(0.5 + side * 0.09, 0.56), (0.5 + side * 0.38, 0.53)], 0.008, (235, 235, 235))
    sheet.polygon([(0.46, 0.51), (0.54, 0.51), (0.5, 0.56)], (205, 120, 120))
    return sheet.finish()


def dog(rng: random.Random) -> bytes:
    wall = pick(rng, (120, 155, 95), (190, 180, 165), (150, 140, 130))
    sheet = Sheet(rng, wall, shaded(wall, -30), 0.75)
    coat = pick(rng, (190, 140, 90), (235, 225, 210), (110, 75, 50), (215, 175, 120))
    sheet.ellipse(0.5, 0.92, 0.66, 0.56, coat)
    sheet.ellipse(0.5, 0.44, 0.50, 0.54, coat)
    for side in (-1, 1):
        sheet.ellipse(0.5 + side * 0.25, 0.42, 0.17, 0.46, shaded(coat, -50))
        sheet.ellipse(0.5 + side * 0.11, 0.38, 0.08, 0.08, (25, 18, 14))
    sheet.ellipse(0.5, 0.58, 0.30, 0.28, shaded(coat, 30))
    sheet.ellipse(0.5, 0.52, 0.14, 0.10, (25, 20, 20))
    sheet.line([(0.5, 0.56), (0.5, 0.64)], 0.012, (60, 40, 35))
    sheet.ellipse(0.5, 0.70, 0.10, 0.12, (220, 110, 120))
    return sheet.finish()


def deer(rng: random.Random) -> bytes:
    sheet = Sheet(rng, pick(rng, (85, 110, 65), (125, 140, 95), (150, 160, 130)), pick(rng, (125, 135, 65), (150, 130, 80)), 0.55)
    coat = pick(rng, (160, 110, 65), (140, 95, 55), (175, 130, 85))
    for x in (0.34, 0.41, 0.66, 0.73):
        sheet.line([(x, 0.60), (x + rng.uniform(-0.02, 0.02), 0.93)], 0.035, shaded(coat, -30))
    sheet.ellipse(0.54, 0.56, 0.50, 0.22, coat)
    sheet.polygon([(0.32, 0.62), (0.22, 0.30), (0.32, 0.27), (0.46, 0.50)], coat)
    sheet.ellipse(0.22, 0.28, 0.22, 0.12, coat)
    sheet.ellipse(0.77, 0.51, 0.08, 0.12, (240, 235, 225))
    sheet.ellipse(0.34, 0.22, 0.12, 0.05, shaded(coat, -15))
    sheet.ellipse(0.13, 0.29, 0.04, 0.04, (25, 20, 18))
    for side in (-0.07, 0.07):
        x = 0.26 + side / 2
        sheet.line([(x, 0.23), (x + side, 0.10), (x + side * 1.6, 0.03)], 0.018, (110, 85, 60))
        sheet.line([(x + side, 0.10), (x + side * 0.2, 0.03)], 0.016, (110, 85, 60))
    return sheet.finish()


def frog(rng: random.Random) -> bytes:
    ground = pick(rng, (125, 100, 70), (70, 95, 55), (150, 140, 115))
    sheet = Sheet(rng, ground, ground, 1.0)
    skin = pick(rng, (95, 150, 45), (70, 125, 50), (125, 140, 60), (115, 105, 55))
    for side in (-1, 1):
        sheet.ellipse(0.5 + side * 0.30, 0.68, 0.26, 0.34, shaded(skin, -25))
        sheet.line([(0.5 + side * 0.20, 0.62), (0.5 + side * 0.24, 0.88), (0.5 + side * 0.33, 0.91)], 0.06, shaded(skin, -10))
    sheet.ellipse(0.5, 0.60, 0.52, 0.46, skin)
    sheet.ellipse(0.5, 0.70, 0.36, 0.26, shaded((200, 200, 130), rng.randint(-15, 15)))
    sheet.ellipse(0.5, 0.42, 0.50, 0.30, skin)
    for side in (-1, 1):
        sheet.ellipse(0.5 + side * 0.17, 0.29, 0.16, 0.15, skin)
        sheet.ellipse(0.5 + side * 0.17, 0.29, 0.10, 0.10, (215, 185, 60))
        sheet.ellipse(0.5 + side * 0.17, 0.29, 0.055, 0.06, (10, 10, 10))
    for _ in range(12):
        angle, far = rng.uniform(0, 2 * math.pi), rng.uniform(0.05, 0.22)
        sheet.ellipse(0.5 + far * math.cos(angle), 0.52 + far * math.sin(angle) * 0.6, 0.04, 0.03, shaded(skin, -50))
    sheet.line([(0.30, 0.46), (0.5, 0.51), (0.70, 0.46)], 0.014, shaded(skin, -70))
    return sheet.finish()


def horse(rng: random.Random) -> bytes:
    sheet = Sheet(rng, pick(rng, (160, 195, 230), (190, 205, 215)), pick(rng, (95, 135, 60), (150, 130, 90)), 0.60)
    coat = pick(rng, (115, 65, 35), (80, 50, 35), (150, 95, 55), (215, 210, 205))
    mane = shaded(coat, -50)
    for x in (0.33, 0.41, 0.69, 0.76):
        sheet.line([(x, 0.60), (x + rng.uniform(-0.02, 0.02), 0.93)], 0.05, shaded(coat, -15))
    sheet.ellipse(0.55, 0.54, 0.54, 0.28, coat)
    sheet.polygon([(0.30, 0.62), (0.17, 0.27), (0.32, 0.17), (0.52, 0.46)], coat)
    sheet.polygon([(0.32, 0.16), (0.34, 0.28), (0.04, 0.44), (0.02, 0.36), (0.18, 0.18)], coat)
    sheet.polygon([(0.26, 0.20), (0.29, 0.07), (0.34, 0.19)], coat)
    sheet.line([(0.32, 0.14), (0.42, 0.32), (0.50, 0.46)], 0.06, mane)
    sheet.line([(0.80, 0.46), (0.90, 0.56), (0.90, 0.80)], 0.06, mane)
    sheet.ellipse(0.19, 0.25, 0.03, 0.03, (15, 12, 10))
    return sheet.finish()


KINDS: tuple[Callable[[random.Random], bytes], ...] = (
    airplane, automobile, bird, cat, deer, dog, frog, horse, ship, truck,
)  # fmt: skip
