"""The vocabulary of invented films: taste groups, each with genres and four themes."""

from typing import NamedTuple


class Theme(NamedTuple):
    """nouns: for titles and descriptions. subjects: what a film of the theme is about."""

    nouns: tuple[str, ...]
    subjects: tuple[str, ...]


class Group(NamedTuple):
    """genre: the main genre; second: one that often goes with it. mood: adjectives."""

    genre: str
    second: str
    mood: tuple[str, ...]
    themes: tuple[Theme, ...]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _theme(nouns: str, subjects: str) -> Theme:
    return Theme(tuple(nouns.split(", ")), tuple(subjects.split(", ")))


def _group(genre: str, second: str, mood: str, *themes: Theme) -> Group:
    return Group(genre, second, tuple(mood.split(", ")), themes)


GROUPS = (
    _group(
        "Sci-Fi",
        "Adventure",
        "Distant, Stellar, Silent, Infinite, Frozen, Electric",
        _theme(
            "Starship, Orbit, Airlock, Nebula, Comet",
            "a starship crew adrift between planets, a lost colony on a moon, a race for a comet",
        ),
        _theme(
            "Android, Circuit, Machine, Signal, Automaton",
            "a robot that learns to lie, an artificial mind in a factory, machines that dream",
        ),
        _theme(
            "Paradox, Clock, Yesterday, Loop, Century",
            "a traveller who meets his younger self, a day that repeats, a letter from the future",
        ),
        _theme(
            "Visitor, Contact, Swarm, Beacon, Invasion",
            "a first contact with aliens, visitors from a dying world, a message in the noise",
        ),
    ),
    _group(
        "Western",
        "Drama",
        "Dusty, Lonesome, Scarlet, Crooked, Wild, Burning",
        _theme(
            "Outlaw, Gunslinger, Bounty, Holster, Posse",
            "an outlaw who rides home, a sheriff with one bullet, a duel at noon",
        ),
        _theme(
            "Ranch, Herd, Lasso, Saddle, Trail",
            "a cattle drive across the plains, two brothers and a ranch, a stolen herd of horses",
        ),
        _theme(
            "Gold, Canyon, Claim, Nugget, Prospector",
            "prospectors and their gold claim, a mine beneath the canyon, a map to buried gold",
        ),
        _theme(
            "Railroad, Depot, Stagecoach, Telegraph, Whistle",
            "the building of a railroad, a stagecoach under siege, a robbed mail train",
        ),
    ),
    _group(
        "Crime",
        "Thriller",
        "Cold, Hidden, Double, Midnight, Broken, Perfect",
        _theme(
            "Heist, Vault, Diamond, Safecracker, Alibi",
            "thieves and a bank vault, a diamond robbery that goes wrong, a forger's last job",
        ),
        _theme(
            "Detective, Clue, Suspect, Motive, Witness",
            "a detective without a suspect, a murder in a locked room, a witness who vanishes",
        ),
        _theme(
            "Verdict, Jury, Lawyer, Oath, Trial",
            "a lawyer who doubts her client, a trial that divides a town, a juror with a secret",
        ),
        _theme(
            "Spy, Cipher, Dossier, Agent, Border",
            "a spy who is betrayed, a double agent at the border, a code that nobody can break",
        ),
    ),
    _group(
        "Romance",
        "Comedy",
        "Sweet, Unlikely, Tender, Second, Hopeless, Sunny",
        _theme(
            "Wedding, Bride, Proposal, Bouquet, Vow",
            "a wedding with two grooms, a runaway bride, a best man in love",
        ),
        _theme(
            "Letter, Postcard, Diary, Stranger, Promise",
            "strangers who write letters, a love letter found years later, a pen friend's visit",
        ),
        _theme(
            "Kitchen, Recipe, Bakery, Dessert, Waiter",
            "rival chefs who fall in love, a bakery about to close, a dinner that changes lives",
        ),
        _theme(
            "Holiday, Island, Summer, Seaside, Lighthouse",
            "a summer romance by the sea, a holiday house booked twice, an island without a ferry",
        ),
    ),
    _group(
        "Horror",
        "Mystery",
        "Dark, Whispering, Rotten, Crimson, Sleepless, Hollow",
        _theme(
            "Ghost, Attic, Haunting, Seance, Portrait",
            "a ghost in the attic, a house that remembers, a family haunted by its past",
        ),
        _theme(
            "Vampire, Coffin, Fang, Blood, Crypt",
            "a vampire in a small town, a castle where nobody ages, a bite at a masked ball",
        ),
        _theme(
            "Witch, Coven, Curse, Ritual, Raven",
            "a village that fears a witch, a curse upon three sisters, a coven in the woods",
        ),
        _theme(
            "Asylum, Nightmare, Patient, Mirror, Experiment",
            "an asylum with one empty cell, a doctor's experiments, a nightmare that spreads",
        ),
    ),
    _group(
        "Documentary",
        "Family",
        "Hidden, Living, Blue, Green, Ancient, Vast",
        _theme(
            "Ocean, Reef, Whale, Tide, Depths",
            "the life of a coral reef, whales on their way north, the deep ocean floor",
        ),
        _theme(
            "Feather, Flight, Nest, Falcon, Migration",
            "the migration of cranes, a falcon raised by hand, birds of a great city",
        ),
        _theme(
            "Summit, Glacier, Ridge, Avalanche, Ascent",
            "climbers on a nameless summit, a glacier that retreats, a winter in the mountains",
        ),
        _theme(
            "Forest, Moss, Wolf, River, Meadow",
            "wolves that return to the forest, a year in an old woodland, the river and its otters",
        ),
    ),
    _group(
        "War",
        "History",
        "Last, Iron, Forgotten, Fallen, Brave, Northern",
        _theme(
            "Submarine, Torpedo, Convoy, Sonar, Fleet",
            "a submarine crew under the ice, a convoy in the storm, sailors of a sunken fleet",
        ),
        _theme(
            "Squadron, Pilot, Bomber, Propeller, Runway",
            "young pilots of a squadron, a bomber lost behind the front, an airfield in the desert",
        ),
        _theme(
            "Resistance, Occupation, Courier, Bridge, Barricade",
            "a courier of the resistance, a town under occupation, saboteurs at a bridge",
        ),
        _theme(
            "Knight, Siege, Crown, Banner, Fortress",
            "knights in a besieged fortress, a king without an army, a squire and the stolen crown",
        ),
    ),
    _group(
        "Musical",
        "Drama",
        "Golden, Loud, Velvet, Restless, Final, Bright",
        _theme(
            "Jazz, Trumpet, Saxophone, Blues, Nightclub",
            "a jazz trumpeter's comeback, a nightclub and its singer, a pianist on the road",
        ),
        _theme(
            "Opera, Aria, Soprano, Overture, Maestro",
            "a soprano who lost her voice, rivals at the opera, a maestro's unfinished work",
        ),
        _theme(
            "Guitar, Band, Tour, Amplifier, Encore",
            "a rock band's last tour, a garage band with one hit, a guitarist and her brother",
        ),
        _theme(
            "Dance, Ballet, Tango, Waltz, Rehearsal",
            "a dancer before her premiere, a tango school, street dancers in a contest",
        ),
    ),
    _group(
        "Sport",
        "Drama",
        "Winning, Rough, Final, Fast, Proud, Underdog",
        _theme(
            "Goal, Stadium, Penalty, Striker, League",
            "a football team of outsiders, a striker after an injury, the coach of a village club",
        ),
        _theme(
            "Boxer, Ring, Glove, Knockout, Champion",
            "a boxer's last fight, a champion from the docks, a trainer and his daughter",
        ),
        _theme(
            "Gambit, Checkmate, Pawn, Queen, Opening",
            "a chess prodigy, two grandmasters and their feud, a chess match by mail",
        ),
        _theme(
            "Race, Throttle, Circuit, Driver, Lap",
            "a racing driver against the clock, mechanics of a small team, a rally in the snow",
        ),
    ),
    _group(
        "Fantasy",
        "Animation",
        "Enchanted, Tiny, Shining, Secret, Wandering, Moonlit",
        _theme(
            "Dragon, Ember, Scale, Rider, Cavern",
            "a girl who raises a dragon, the last dragon rider, a treasure guarded by fire",
        ),
        _theme(
            "Wizard, Spell, Wand, Apprentice, Tower",
            "a wizard's clumsy apprentice, a spell that can't be undone, a school of magic",
        ),
        _theme(
            "Prince, Slipper, Castle, Spindle, Mirror",
            "a fairy tale told backwards, a princess who won't sleep, a prince turned to stone",
        ),
        _theme(
            "Fox, Hedgehog, Badger, Mouse, Owl",
            "a talking fox and his friends, animals that save their wood, a mouse who goes to sea",
        ),
    ),
)

OPENINGS = (
    "A story of",
    "A slow-burning tale of",
    "The award-winning film about",
    "An unusual look at",
    "A debut feature about",
    "Based on a novel, it tells of",
    "A restless portrait of",
    "With humour and care, a film about",
)
NEUTRAL = (
    "Shot on location.",
    "A favourite of critics.",
    "Rediscovered and restored.",
    "The director's second film.",
    "With a cast of newcomers.",
    "Two hours long.",
    "Told in three chapters.",
    "Filmed over several years.",
)
SYLLABLES_FIRST = _words(
    "Vel Mar Tor Ash Kel Bryn Dun Hal Osk Fen Gal Lor Nim Pel Quar Rav Sel Tam Ulm Wend"
)
SYLLABLES_LAST = _words(
    "tharo wick stead mere holm dale port vik burg moor ness ford garth lund field haven"
)
